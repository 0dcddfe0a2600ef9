//! The first line of a section: its name, and the `defaults` it begins from.

use std::collections::HashMap;

use super::{Complaint, name_fault};
use crate::config::diagnostics::{Place, Report};
use crate::config::draft::{ProxyDraft, Settings};
use crate::config::plan::ProxyKind;
use crate::config::raw::token::Word;
use crate::config::raw::{Line, SectionKind};

/// A `defaults` section that was read.
struct Origin {
    name: String,
    place: Place,
    settings: Settings,
    /// Whether a proxy began from it by `from`, and one because it was the latest.
    by_name: bool,
    by_order: bool,
}

/// All `defaults` sections read so far.
#[derive(Default)]
pub(in crate::config) struct Origins {
    list: Vec<Origin>,
    /// Where those of a name are in the list.
    named: HashMap<String, Vec<usize>>,
}

impl Origins {
    /// Keeps what a `defaults` section says; an empty name is none.
    pub(in crate::config) fn add(&mut self, defaults: ProxyDraft) {
        let name = defaults.name;
        if !name.is_empty() {
            let same = self.named.entry(name.clone()).or_default();
            same.push(self.list.len());
        }
        self.list.push(Origin {
            name,
            place: defaults.place,
            settings: defaults.settings,
            by_name: false,
            by_order: false,
        });
    }

    /// Reads a header into a section that is still blank. The section's lines are read even if its
    /// header is wrong, so that their errors are seen in the same run.
    pub(in crate::config) fn header(
        &mut self,
        kind: SectionKind,
        header: &Line,
        blank: &mut ProxyDraft,
        report: &mut Report,
    ) -> Result<(), Complaint> {
        let section = kind.name();
        let mut args = header.words[1..].iter();
        let surplus = |word: &Word| {
            let text = format!(
                "'{section}' cannot handle unexpected argument '{}'.",
                word.text
            );
            Complaint::about(word, text)
        };
        let is_defaults = match kind {
            SectionKind::Global => {
                return args.next().map_or(Ok(()), |word| Err(surplus(word)));
            }
            SectionKind::Defaults => true,
            SectionKind::Frontend | SectionKind::Backend | SectionKind::Listen => false,
        };
        let name = match header.words.get(1) {
            Some(word) if !(is_defaults && word.text == "from") => args.next(),
            Some(_) => None,
            None if is_defaults => None,
            None => return Err(format!("'{section}' expects an <id> argument").into()),
        };
        blank.kind = match kind {
            SectionKind::Frontend => ProxyKind::Frontend,
            SectionKind::Backend => ProxyKind::Backend,
            SectionKind::Listen | SectionKind::Global | SectionKind::Defaults => ProxyKind::Listen,
        };
        if let Some(name) = name {
            blank.name = name.text.clone();
            if let Some(c) = name_fault(&name.text) {
                let text = format!(
                    "character '{c}' is not permitted in '{section}' name '{}'.",
                    name.text
                );
                return Err(Complaint::about(name, text));
            }
        }
        let origin = match (args.next(), args.next(), args.next()) {
            // An unnamed `defaults` begins from nothing, a proxy from the latest one.
            (None, ..) if is_defaults => None,
            (None, ..) => self.list.len().checked_sub(1),
            (Some(from), Some(name), None) if from.text == "from" => {
                let heir = if is_defaults { "defaults" } else { "proxy" };
                Some(self.find(name, heir, &blank.name)?)
            }
            (Some(from), Some(_), Some(word)) if from.text == "from" => return Err(surplus(word)),
            (Some(from), None, _) if from.text == "from" => {
                let text = format!("'{section}' : 'from' expects the name of a defaults section.");
                return Err(Complaint::about(from, text));
            }
            (Some(word), ..) if is_defaults => return Err(surplus(word)),
            (Some(word), ..) => {
                let text = "please use the 'bind' keyword for listening addresses.";
                return Err(Complaint::about(word, text));
            }
        };
        let Some(origin) = origin.and_then(|index| self.list.get_mut(index)) else {
            return Ok(());
        };
        blank.settings = origin.settings.clone();
        blank.settings.check_kind.inherit();
        if !is_defaults {
            origin.used(header, report);
        }
        Ok(())
    }

    /// Where the `defaults` of a name is.
    fn find(&self, name: &Word, heir: &str, heir_name: &str) -> Result<usize, Complaint> {
        let named = self.named.get(&name.text).map_or(&[][..], Vec::as_slice);
        let wanted = &name.text;
        match named {
            [one] => Ok(*one),
            [] => {
                let text =
                    format!("defaults section '{wanted}' not found for {heir} '{heir_name}'.");
                Err(Complaint::about(name, text))
            }
            [first, .., last] => {
                let place = |index: &usize| self.list.get(*index).map(|o| o.place.to_string());
                let text = format!(
                    "defaults section '{wanted}' is ambiguous for {heir} '{heir_name}': it exists \
                     at least at {} and {}.",
                    place(first).unwrap_or_default(),
                    place(last).unwrap_or_default()
                );
                Err(Complaint::about(name, text))
            }
        }
    }
}

impl Origin {
    /// Notes that a proxy begins from it, and warns where the order of sections and a name decide
    /// about the same settings.
    fn used(&mut self, header: &Line, report: &mut Report) {
        if header.words.len() > 2 {
            self.by_name = true;
        } else {
            self.by_order = true;
        }
        if self.by_name && self.by_order {
            let text = format!(
                "defaults section '{}' (declared at {}) is used both explicitly by 'from' and \
                 implicitly as the latest one: use 'from' everywhere, or let a 'defaults' without \
                 a name follow it.",
                self.name, self.place
            );
            report.warning(&header.place, header.words.first(), text);
        }
    }
}
