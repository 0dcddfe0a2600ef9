//! The parameters that follow the address of a `bind` or the name of a `server` line.
//!
//! Both have a table of words (`keywords::BIND`, `keywords::SERVER`) and are walked the same way.

use super::{Call, Complaint, Outcome, Parser};
use crate::config::keywords::{Parameter, Status, closest, did_you_mean};
use crate::config::raw::token::Word;

/// Whose parameters they are.
pub(in crate::config) struct Owner<'a> {
    /// The first word of the line, for messages about words that don't work.
    pub(in crate::config) keyword: &'static str,
    /// How messages about a word begin.
    pub(in crate::config) what: &'a str,
    /// The message about a parameter without its value: gets its name and its value's syntax.
    pub(in crate::config) missing: fn(&str, &str) -> String,
}

/// The names among `words`, without their values.
pub(in crate::config) fn names<'a, T>(
    table: &'static [Parameter<T>],
    words: &'a [Word],
) -> impl Iterator<Item = &'a Word> {
    let mut words = words.iter();
    std::iter::from_fn(move || {
        let word = words.next()?;
        let parameter = table.iter().find(|parameter| parameter.is(&word.text));
        let values = parameter.map_or(0, |parameter| parameter.values);
        words.by_ref().take(values).for_each(drop);
        Some(word)
    })
}

/// Reads `words` into `settings`, one after the other.
pub(in crate::config) fn read<T>(
    parser: &mut Parser<'_>,
    call: &Call<'_>,
    owner: &Owner<'_>,
    table: &'static [Parameter<T>],
    words: &[Word],
    settings: &mut T,
) -> Outcome {
    let what = owner.what;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let name = word.text.as_str();
        let Some(parameter) = table.iter().find(|parameter| parameter.is(name)) else {
            let working = table
                .iter()
                .filter(|p| matches!(p.status, Status::Works(_)));
            let near = did_you_mean(closest(name, working.map(|p| p.help.name)));
            let text = format!("{what} : unknown keyword '{name}'{near}");
            return Err(Complaint::about(word, text));
        };
        let Status::Works(set) = &parameter.status else {
            words.by_ref().take(parameter.values).for_each(drop);
            let name = format!("{} ... {name}", owner.keyword);
            parser.not_working(call.line, word, &name, parameter.help.standing);
            continue;
        };
        let mut value = "";
        let mut value_word = None;
        if parameter.values > 0 {
            let Some(word) = words.next() else {
                let text = (owner.missing)(name, parameter.help.syntax);
                return Err(Complaint::about(word, format!("{what} : {text}")));
            };
            value = &word.text;
            value_word = Some(word);
        }
        set(parser.environment, settings, name, value)
            .map_err(|text| Complaint::about(word, format!("{what} : {text}")))?;
        if parameter.help.syntax == "<time>" {
            parser.check_time(call.line, value_word);
        }
    }
    Ok(())
}
