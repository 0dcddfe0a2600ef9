//! One parameter of a `bind` or `server` line.

use super::{Origin, Standing, Status, matches};
use crate::config::environment::Environment;

/// A parameter of `bind` or `server` lines; `T` is what it is set in.
pub(in crate::config) struct Parameter<T> {
    pub(in crate::config) help: ParameterHelp,
    /// How many words follow it.
    pub(in crate::config) values: usize,
    pub(in crate::config) status: Status<Set<T>>,
}

/// How a parameter is set; gets its own name and its value.
pub(in crate::config) type Set<T> = fn(&dyn Environment, &mut T, &str, &str) -> Result<(), String>;

/// A parameter or a section, as the reference shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterHelp {
    /// The word; one that ends in `*` stands for all that begin with it.
    pub name: &'static str,
    /// Its value; empty = it takes none.
    pub syntax: &'static str,
    /// What holds where it is absent.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whose word it is.
    pub origin: Origin,
    /// What becomes of it.
    pub standing: Standing,
}

impl<T> Parameter<T> {
    const fn new(
        name: &'static str,
        syntax: &'static str,
        help: &'static str,
        standing: Standing,
        status: Status<Set<T>>,
    ) -> Parameter<T> {
        Parameter {
            help: ParameterHelp {
                name,
                syntax,
                default: "",
                help,
                origin: Origin::HaProxy,
                standing,
            },
            values: if syntax.is_empty() { 0 } else { 1 },
            status,
        }
    }

    /// Whether it is the one of this name.
    pub(in crate::config) fn is(&self, name: &str) -> bool {
        matches(self.help.name, name)
    }

    /// One that works.
    pub(super) const fn works(
        name: &'static str,
        syntax: &'static str,
        help: &'static str,
        set: Set<T>,
    ) -> Parameter<T> {
        Parameter::new(name, syntax, help, Standing::Works, Status::Works(set))
    }

    /// Makes the word Tidegate's own.
    pub(super) const fn ours(mut self) -> Parameter<T> {
        self.help.origin = Origin::Tidegate;
        self
    }

    /// One that isn't there yet and can be left out.
    pub(super) const fn later(
        name: &'static str,
        syntax: &'static str,
        help: &'static str,
    ) -> Parameter<T> {
        Parameter::new(name, syntax, help, Standing::Later(""), Status::Later(""))
    }

    /// One that isn't there yet and can't be left out.
    pub(super) const fn needed(
        name: &'static str,
        syntax: &'static str,
        help: &'static str,
    ) -> Parameter<T> {
        Parameter::new(name, syntax, help, Standing::Needed, Status::Needed)
    }

    /// One that can't change anything.
    pub(super) const fn no_effect(
        name: &'static str,
        syntax: &'static str,
        reason: &'static str,
    ) -> Parameter<T> {
        let standing = Standing::NoEffect(reason);
        Parameter::new(name, syntax, "", standing, Status::NoEffect(reason))
    }

    /// One that doesn't come.
    pub(super) const fn never(
        name: &'static str,
        syntax: &'static str,
        reason: &'static str,
    ) -> Parameter<T> {
        let standing = Standing::Never(reason);
        Parameter::new(name, syntax, "", standing, Status::Never(reason))
    }

    /// Sets what holds where the parameter is absent.
    pub(super) const fn default(mut self, default: &'static str) -> Parameter<T> {
        self.help.default = default;
        self
    }

    /// Says what it means that a parameter is left out.
    pub(super) const fn meaning(mut self, meaning: &'static str) -> Parameter<T> {
        self.help.standing = Standing::Later(meaning);
        self.status = Status::Later(meaning);
        self
    }
}
