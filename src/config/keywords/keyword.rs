//! One keyword of a section.

use super::{MANY, Origin, Side, Standing, Status, matches};
use crate::config::draft::Mode;
use crate::config::parse::{Call, Outcome, Parser};

type Parse = fn(&mut Parser<'_>, &Call<'_>) -> Outcome;

/// One keyword.
pub struct Keyword {
    /// The word, or two words of a family (`timeout client`). One that ends in `*` stands for all
    /// that begin with it.
    pub name: &'static str,
    /// Where it has a meaning.
    pub side: Side,
    /// Whether `defaults` may hold it.
    pub in_defaults: bool,
    /// Most arguments.
    pub args_max: usize,
    /// Its arguments.
    pub syntax: &'static str,
    /// What holds where it is absent; empty = nothing worth saying.
    pub default: &'static str,
    /// What it does; of one that has no effect or never comes the reason says enough.
    pub help: &'static str,
    /// Which of its arguments aren't there yet; a line with one is refused, or does nothing.
    pub lacks: &'static [&'static str],
    /// Whose word it is.
    pub origin: Origin,
    pub(in crate::config) status: Status<Parse>,
    /// The one mode of proxies in which it means something; `None` = any.
    pub(in crate::config) only: Option<Mode>,
    /// It means something in proxies of requests too.
    pub(in crate::config) in_pages: bool,
}

impl std::fmt::Debug for Keyword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyword")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Keyword {
    /// What becomes of it.
    pub fn standing(&self) -> Standing {
        self.status.standing()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        matches(self.name, name)
    }

    /// Sets what holds where the keyword is absent.
    pub(super) const fn default(self, default: &'static str) -> Keyword {
        Keyword { default, ..self }
    }

    /// Names the arguments that aren't there yet.
    pub(super) const fn lacks(self, lacks: &'static [&'static str]) -> Keyword {
        Keyword { lacks, ..self }
    }

    /// Makes the word Tidegate's own.
    pub(super) const fn ours(self) -> Keyword {
        let origin = Origin::Tidegate;
        Keyword { origin, ..self }
    }

    /// Says what it means that a word is left out.
    pub(super) const fn meaning(self, meaning: &'static str) -> Keyword {
        let status = Status::Later(meaning);
        Keyword { status, ..self }
    }

    /// Makes it a word of proxies of streams.
    pub(super) const fn streams(self) -> Keyword {
        let only = Some(Mode::Tcp);
        Keyword { only, ..self }
    }

    /// Makes it a word of proxies of datagrams, which is Tidegate's own.
    pub(super) const fn datagrams(self) -> Keyword {
        let only = Some(Mode::Udp);
        Keyword { only, ..self }.ours()
    }

    /// Makes it a word of proxies of requests, which only answer.
    pub(super) const fn requests(self) -> Keyword {
        let only = Some(Mode::Http);
        Keyword { only, ..self }
    }

    /// Lets it stand in proxies of requests as well.
    pub(super) const fn also_requests(self) -> Keyword {
        let in_pages = true;
        Keyword { in_pages, ..self }
    }

    /// Keeps the word out of `defaults`.
    pub(super) const fn not_in_defaults(self) -> Keyword {
        let in_defaults = false;
        Keyword {
            in_defaults,
            ..self
        }
    }
}

/// A keyword that works.
pub(super) const fn works(
    name: &'static str,
    side: Side,
    args_max: usize,
    syntax: &'static str,
    help: &'static str,
    parse: Parse,
) -> Keyword {
    let in_defaults = !matches!(side, Side::Global);
    Keyword {
        name,
        side,
        in_defaults,
        args_max,
        syntax,
        default: "",
        help,
        lacks: &[],
        origin: Origin::HaProxy,
        status: Status::Works(parse),
        only: None,
        in_pages: false,
    }
}

const fn idle(
    name: &'static str,
    side: Side,
    syntax: &'static str,
    help: &'static str,
    status: Status<Parse>,
) -> Keyword {
    let in_defaults = !matches!(side, Side::Global);
    Keyword {
        name,
        side,
        in_defaults,
        args_max: MANY,
        syntax,
        default: "",
        help,
        lacks: &[],
        origin: Origin::HaProxy,
        status,
        only: None,
        in_pages: false,
    }
}

/// A keyword that isn't there yet and can be left out.
pub(super) const fn later(
    name: &'static str,
    side: Side,
    syntax: &'static str,
    help: &'static str,
) -> Keyword {
    idle(name, side, syntax, help, Status::Later(""))
}

/// A keyword that isn't there yet and can't be left out.
pub(super) const fn needed(
    name: &'static str,
    side: Side,
    syntax: &'static str,
    help: &'static str,
) -> Keyword {
    idle(name, side, syntax, help, Status::Needed)
}

/// A keyword that can't change anything.
pub(super) const fn no_effect(
    name: &'static str,
    side: Side,
    syntax: &'static str,
    reason: &'static str,
) -> Keyword {
    idle(name, side, syntax, "", Status::NoEffect(reason))
}

/// A keyword that doesn't come.
pub(super) const fn never(
    name: &'static str,
    side: Side,
    syntax: &'static str,
    reason: &'static str,
) -> Keyword {
    idle(name, side, syntax, "", Status::Never(reason))
}
