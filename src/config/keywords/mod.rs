//! The keyword table: every word of the configuration language, with what becomes of it, as data.
//!
//! HAProxy's words of the TCP level and Tidegate's own stand in one table, by section: `global`,
//! `proxy`, `bind`, `server`. The parser, "did you mean", `tidegate help` and the reference page
//! are made from it. Adding a keyword is one entry here and one function in a file of `parse`. No
//! word is ignored in silence: see `Status`.

mod bind;
mod global;
mod keyword;
mod parameter;
mod proxy;
pub mod reference;
mod server;
mod suggest;

use super::diagnostics::Severity;
use super::raw::SectionKind;
use super::raw::sections;
use super::raw::token::Word;

pub(super) use bind::BIND;
pub use keyword::Keyword;
pub(super) use parameter::Parameter;
pub use parameter::ParameterHelp;
pub(super) use server::SERVER;
pub(super) use suggest::{closest, did_you_mean};

/// Whose word it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// HAProxy's, with its meaning.
    HaProxy,
    /// Tidegate's own.
    Tidegate,
}

/// Where a keyword has a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The `global` section.
    Global,
    /// Proxies that accept: `frontend`, `listen`.
    Front,
    /// Proxies that connect: `backend`, `listen`.
    Back,
    /// All proxies.
    Both,
    /// The `global` section and all proxies.
    Everywhere,
}

/// What becomes of a word; `F` is what reads it where it works.
#[derive(Clone, Copy)]
pub(super) enum Status<F> {
    /// It works.
    Works(F),
    /// It can't change anything here, for the reason given: a warning.
    NoEffect(&'static str),
    /// Not implemented yet: a warning, and the line is left out. With what that means, where it
    /// isn't clear from the word.
    Later(&'static str),
    /// Not implemented yet, and an error: left out, connections or bytes would pass, or go
    /// elsewhere, against what the file says.
    Needed,
    /// Not implemented on purpose, for the reason given: an error.
    Never(&'static str),
}

/// The same for those who only want to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It works.
    Works,
    /// Accepted with a warning: it can't change anything, for the reason given.
    NoEffect(&'static str),
    /// Not implemented yet: a warning, and it is left out, with what that means where it isn't
    /// empty.
    Later(&'static str),
    /// Not implemented yet: an error, because the file would mean something else without it.
    Needed,
    /// An error, for the reason given.
    Never(&'static str),
}

impl Standing {
    /// What there is to say about a thing that does nothing.
    pub(super) fn message(self, thing: &str) -> Option<(Severity, String)> {
        let (severity, text) = match self {
            Standing::Works => return None,
            Standing::NoEffect(reason) => (
                Severity::Warning,
                format!("{thing} is accepted and has no effect: {reason}."),
            ),
            Standing::Later(meaning) => {
                let colon = if meaning.is_empty() { "" } else { ": " };
                let end = format!("is left out{colon}{meaning}.");
                let text = format!("{thing} is not implemented in Tidegate yet and {end}");
                (Severity::Warning, text)
            }
            Standing::Needed => (
                Severity::Alert,
                format!(
                    "{thing} is not implemented in Tidegate yet, and without it connections \
                     would not go as the file says."
                ),
            ),
            Standing::Never(reason) => (Severity::Alert, format!("{thing} : {reason}.")),
        };
        Some((severity, text))
    }
}

impl<F> Status<F> {
    pub(super) fn standing(&self) -> Standing {
        match self {
            Status::Works(_) => Standing::Works,
            Status::NoEffect(reason) => Standing::NoEffect(reason),
            Status::Later(meaning) => Standing::Later(meaning),
            Status::Needed => Standing::Needed,
            Status::Never(reason) => Standing::Never(reason),
        }
    }
}

/// No bound of its own: the words of a line are bounded.
const MANY: usize = usize::MAX;

const HTTP_ONLY: &str = "it concerns HTTP only";
const TLS_ONLY: &str = "it concerns TLS only, which is not terminated here";
const QUIC_ONLY: &str = "it concerns QUIC only, which is not supported";
const CHOSEN: &str = "Tidegate chooses this by itself";
const NO_CHILDREN: &str = "no process is started";
/// What it means that a health check of a protocol is left out.
const CONNECTS: &str = "checks only connect, and a server that accepts connections counts as up";

/// The keywords of all sections.
pub fn keywords() -> impl Iterator<Item = &'static Keyword> + Clone {
    global::GLOBAL.iter().chain(proxy::PROXY)
}

/// The sections.
pub fn sections() -> impl Iterator<Item = ParameterHelp> {
    sections::SECTIONS.iter().copied()
}

/// The parameters of `bind` lines.
pub fn bind_parameters() -> impl Iterator<Item = ParameterHelp> {
    BIND.iter().map(|parameter| parameter.help)
}

/// The parameters of `server` and `default-server` lines.
pub fn server_parameters() -> impl Iterator<Item = ParameterHelp> {
    SERVER.iter().map(|parameter| parameter.help)
}

/// First words of keywords that consist of two.
const FAMILIES: &[&str] = &["option", "timeout", "stats"];

/// What the words of a line turn out to be.
pub(super) enum Found {
    /// A keyword, its words as they are written, and how many they are.
    Keyword(&'static Keyword, String, usize),
    /// None; with a message where the family has one of its own.
    Unknown(Option<String>),
}

/// Finds a line's keyword among those of a section.
pub(super) fn find(words: &[Word], section: SectionKind) -> Found {
    let first = words.first().map_or("", |word| word.text.as_str());
    let second = words.get(1).map_or("", |word| word.text.as_str());
    let family = FAMILIES.contains(&first);
    let name = if family {
        format!("{first} {second}")
    } else {
        first.to_owned()
    };
    if let Some(keyword) = of_section(section).find(|keyword| keyword.is(&name)) {
        return Found::Keyword(keyword, name, 1 + usize::from(family));
    }
    let in_family = |prefix: &str| of_section(section).any(|k| k.name.starts_with(prefix));
    let text = (family && in_family(&format!("{first} "))).then(|| match first {
        "option" if second.is_empty() => "'option' expects an option name.".to_owned(),
        "option" => {
            let near = did_you_mean(closest(second, family_words(first, section)));
            let end = if near.is_empty() { "." } else { near.as_str() };
            format!("unknown option '{second}'{end}")
        }
        _ => format!(
            "'{first}' only supports {} (got '{second}')",
            suggest::listed(family_words(first, section))
        ),
    });
    Found::Unknown(text)
}

/// Whether a name is the one of an entry, or one of those that the entry stands for.
fn matches(entry: &str, name: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix) && name.len() > prefix.len(),
        None => entry == name,
    }
}

/// The keywords that may stand in a section, whatever becomes of them.
fn of_section(section: SectionKind) -> impl Iterator<Item = &'static Keyword> {
    keywords().filter(move |keyword| match keyword.side {
        Side::Everywhere => true,
        Side::Global => section == SectionKind::Global,
        Side::Front | Side::Back | Side::Both => section != SectionKind::Global,
    })
}

/// The second words of a family's keywords that do something in a section.
fn family_words(family: &str, section: SectionKind) -> impl Iterator<Item = &'static str> {
    let prefix = format!("{family} ");
    let here = of_section(section).filter(|keyword| keyword.standing() == Standing::Works);
    here.filter_map(move |keyword| keyword.name.strip_prefix(prefix.as_str()))
}

/// The keyword of a section that is most like `name`.
pub(super) fn closest_keyword(name: &str, section: SectionKind) -> Option<&'static str> {
    let here = of_section(section).filter(|keyword| {
        let backend_only = section == SectionKind::Frontend && keyword.side == Side::Back;
        let frontend_only = section == SectionKind::Backend && keyword.side == Side::Front;
        keyword.standing() == Standing::Works && !backend_only && !frontend_only
    });
    let sections = sections::names();
    closest(name, here.map(|keyword| keyword.name).chain(sections))
}
