//! The sections of a configuration: those that are read, and HAProxy's others, known by name.
//!
//! Of a section that isn't read this is said once, and its lines are skipped. It is an error only
//! where leaving it out changes which connections or bytes pass; a keyword that refers to such a
//! section complains for itself.

use crate::config::keywords::{Origin, ParameterHelp, Standing, closest};

/// The sections that are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum SectionKind {
    /// `global`
    Global,
    /// `defaults`
    Defaults,
    /// `frontend`
    Frontend,
    /// `backend`
    Backend,
    /// `listen`
    Listen,
}

impl SectionKind {
    const ALL: [SectionKind; 5] = [
        SectionKind::Global,
        SectionKind::Defaults,
        SectionKind::Frontend,
        SectionKind::Backend,
        SectionKind::Listen,
    ];

    /// The word that begins it.
    pub(in crate::config) fn name(self) -> &'static str {
        match self {
            SectionKind::Global => "global",
            SectionKind::Defaults => "defaults",
            SectionKind::Frontend => "frontend",
            SectionKind::Backend => "backend",
            SectionKind::Listen => "listen",
        }
    }

    /// The section that a word begins.
    pub(in crate::config) fn of(word: &str) -> Option<SectionKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == word)
    }
}

const HTTP_ONLY: Standing = Standing::NoEffect("it concerns HTTP only");
const TLS_ONLY: Standing = Standing::NoEffect("it concerns TLS only, which is not terminated here");

/// Every section of HAProxy.
#[rustfmt::skip]
pub(in crate::config) static SECTIONS: &[ParameterHelp] = &[
    section("global", "", "Settings of the process; there may be several.", Standing::Works),
    section("defaults", "[<name>] [from <defaults>]", "What the proxies that follow begin from.", Standing::Works),
    section("frontend", "<name> [from <defaults>]", "A proxy that accepts connections.", Standing::Works),
    section("backend", "<name> [from <defaults>]", "A proxy with servers.", Standing::Works),
    section("listen", "<name> [from <defaults>]", "Both in one.", Standing::Works),
    section("acme", "<name>", "", TLS_ONLY),
    section("cache", "<name>", "", HTTP_ONLY),
    section("crt-store", "[<name>]", "", TLS_ONLY),
    section("fcgi-app", "<name>", "", Standing::Never("FastCGI is for 'mode http', which is not supported")),
    section("http-errors", "<name>", "", HTTP_ONLY),
    // It has listeners of its own.
    section("log-forward", "<name>", "Listeners for log lines.", Standing::Needed),
    section("log-profile", "<name>", "Forms of log lines.", Standing::Later("")),
    section("mailers", "<name>", "Where alerts are mailed.", Standing::Later("")),
    section("peers", "<name>", "Processes that share stick tables.", Standing::Later("")),
    section("program", "<name>", "", Standing::Never("HAProxy removed it; let the service manager start the program")),
    section("resolvers", "<name>", "Name servers to follow changes of addresses with.", Standing::Later("names are resolved once, at the start")),
    section("ring", "<name>", "Log lines kept in memory.", Standing::Later("")),
    section("traces", "", "", Standing::NoEffect("it concerns HAProxy's own debugging")),
    section("userlist", "<name>", "", HTTP_ONLY),
];

const fn section(
    name: &'static str,
    syntax: &'static str,
    help: &'static str,
    standing: Standing,
) -> ParameterHelp {
    ParameterHelp {
        name,
        syntax,
        default: "",
        help,
        origin: Origin::HaProxy,
        standing,
    }
}

/// What becomes of the section that a word begins, if it begins one.
pub(in crate::config) fn standing(word: &str) -> Option<Standing> {
    let found = SECTIONS.iter().find(|section| section.name == word);
    found.map(|section| section.standing)
}

/// The words that begin a section.
pub(in crate::config) fn all_names() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|section| section.name)
}

/// The words that begin a section that is read.
pub(in crate::config) fn names() -> impl Iterator<Item = &'static str> {
    SectionKind::ALL.into_iter().map(SectionKind::name)
}

/// The section that is read and that a word most likely should begin. Where lines are skipped, a
/// misspelt header would take its section along without a word.
pub(in crate::config) fn misspelt(word: &str) -> Option<&'static str> {
    closest(word, names())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_that_work_are_those_that_are_read() {
        for section in SECTIONS {
            let is_read = SectionKind::of(section.name).is_some();
            assert_eq!(
                is_read,
                section.standing == Standing::Works,
                "{}",
                section.name
            );
        }
    }
}
