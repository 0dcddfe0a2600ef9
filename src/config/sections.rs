//! The sections of a configuration: those that are read, and HAProxy's others, known by name.
//!
//! A section that isn't read is said so once and its lines are skipped. It is an error only where
//! leaving it out changes which connections or bytes pass; a keyword that refers to such a section
//! complains for itself.

/// The sections that are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SectionKind {
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
    pub(super) fn name(self) -> &'static str {
        match self {
            SectionKind::Global => "global",
            SectionKind::Defaults => "defaults",
            SectionKind::Frontend => "frontend",
            SectionKind::Backend => "backend",
            SectionKind::Listen => "listen",
        }
    }

    /// The section that a word begins.
    pub(super) fn of(word: &str) -> Option<SectionKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == word)
    }
}

/// What becomes of a section that is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// A warning: it can't change anything here, for the reason given.
    NoEffect(&'static str),
    /// A warning: not implemented yet, and nothing passes otherwise without it.
    Later,
    /// An error: not implemented yet, and something would pass otherwise without it.
    Needed,
    /// An error, for the reason given.
    Never(&'static str),
}

const HTTP_ONLY: Fate = Fate::NoEffect("it concerns HTTP only");
const TLS_ONLY: Fate = Fate::NoEffect("it concerns TLS only, which is not terminated here");

const SKIPPED: &[(&str, Fate)] = &[
    ("acme", TLS_ONLY),
    ("cache", HTTP_ONLY),
    ("crt-store", TLS_ONLY),
    (
        "fcgi-app",
        Fate::Never("FastCGI is spoken in HTTP mode only, which there is not"),
    ),
    ("http-errors", HTTP_ONLY),
    // It listens for itself.
    ("log-forward", Fate::Needed),
    ("log-profile", Fate::Later),
    ("mailers", Fate::Later),
    ("peers", Fate::Later),
    (
        "program",
        Fate::Never("let the service manager start the program"),
    ),
    ("resolvers", Fate::Later),
    ("ring", Fate::Later),
    (
        "traces",
        Fate::NoEffect("it concerns HAProxy's own debugging"),
    ),
    ("userlist", HTTP_ONLY),
];

/// What becomes of the section that a word begins, if it is one that is not read.
pub(super) fn skipped(word: &str) -> Option<Fate> {
    let found = SKIPPED.iter().find(|(name, _)| *name == word);
    found.map(|(_, fate)| *fate)
}
