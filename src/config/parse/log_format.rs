//! `log-format` and its like. The texts are kept: a proxy in `mode http` may inherit what isn't for
//! connections, so only a proxy that has lines of its own reads them.

use super::{Call, Outcome, Parser};
use crate::config::draft::FormatWord;
use crate::config::raw::Prefix;

/// `log-format`, `log-format-sd`, `error-log-format` and `unique-id-format`.
pub(in crate::config) fn format(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let word = match call.args {
        [] => return Err(format!("{name} expects an argument.").into()),
        [word] => word.clone(),
        _ => {
            let text = format!("{name} expects only one argument, don't forget to escape spaces!");
            return Err(call.complain(1, text));
        }
    };
    let place = call.line.place.clone();
    let lines = &mut parser.current.settings.lines;
    let slot = match name {
        "log-format" => &mut lines.line,
        "log-format-sd" => &mut lines.structured,
        "error-log-format" => &mut lines.error,
        _ => &mut lines.unique_id,
    };
    *slot = Some(FormatWord { word, place });
    Ok(())
}

/// `option logasap`.
pub(in crate::config) fn asap(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.current.settings.lines.asap = call.line.prefix == Prefix::Set;
    Ok(())
}

/// `log-tag` of a proxy.
pub(in crate::config) fn tag(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'log-tag' expects a tag for use in syslog.".into());
    }
    parser.current.settings.lines.tag = Some(call.arg(0).to_owned());
    Ok(())
}
