//! The variables of a load: the environment's, those HAProxy defines, and what `setenv` and its
//! like make of them.
//!
//! `setenv`, `presetenv`, `unsetenv` and `resetenv` work while lines are read, from the next line
//! on and for later files too. They change this overlay and never the program's own environment.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use super::features;
use super::token::Word;
use crate::config::environment::Environment;
use crate::config::plan;

/// HAProxy's `option tcplog` as a format.
pub(in crate::config) const TCP_LOG_FORMAT: &str =
    "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";

/// HAProxy's `option httplog` as a format; proxies of `mode http` refer to it.
const HTTP_LOG_FORMAT: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc \
                               %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r";

/// What a statement about variables has to say.
pub(in crate::config) enum Remark {
    /// It is refused.
    Error(String),
    /// A word of it is ignored.
    Warning(String),
}

/// The variables as the line at hand sees them.
pub(in crate::config) struct Variables<'a> {
    environment: &'a dyn Environment,
    /// Set (`Some`) or removed (`None`).
    changed: HashMap<String, Option<String>>,
    /// Whether the environment's own are gone.
    is_reset: bool,
    /// Names that were looked up.
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Variables<'a> {
    /// What holds before the first line.
    pub(in crate::config) fn new(environment: &'a dyn Environment) -> Self {
        let predefined = [
            ("HAPROXY_BRANCH", features::branch()),
            ("HAPROXY_STARTUP_VERSION", features::version()),
            ("HAPROXY_LOCALPEER", environment.local_peer()),
            ("HAPROXY_HTTP_LOG_FMT", HTTP_LOG_FORMAT.to_owned()),
            ("HAPROXY_TCP_LOG_FMT", TCP_LOG_FORMAT.to_owned()),
        ];
        let changed = predefined.map(|(name, value)| (name.to_owned(), Some(value)));
        Variables {
            environment,
            changed: changed.into(),
            is_reset: false,
            asked: RefCell::default(),
        }
    }

    /// The value of a variable, if it is set.
    pub(in crate::config) fn get(&self, name: &str) -> Option<String> {
        if !self.asked.borrow().contains(name) {
            self.asked.borrow_mut().insert(name.to_owned());
        }
        match self.changed.get(name) {
            Some(value) => value.clone(),
            None if self.is_reset => None,
            None => self.environment.variable(name),
        }
    }

    /// What differs from the environment.
    pub(in crate::config) fn changes(&self) -> plan::Variables {
        let changed = self.changed.iter();
        plan::Variables {
            changed: changed
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            is_reset: self.is_reset,
        }
    }

    /// The names that were looked up, in their order.
    pub(in crate::config) fn asked(self) -> Vec<String> {
        self.asked.into_inner().into_iter().collect()
    }

    /// Carries out a statement of the `global` section if it is one about variables; gives `None`
    /// if it isn't.
    pub(in crate::config) fn statement(&mut self, words: &[Word]) -> Option<Result<(), Remark>> {
        let keyword = words.first()?.text.as_str();
        let args = words.get(1..).unwrap_or_default();
        match keyword {
            "setenv" => Some(self.assign(keyword, args, true)),
            "presetenv" => Some(self.assign(keyword, args, false)),
            "unsetenv" => Some(self.remove(args)),
            "resetenv" => {
                self.reset(args);
                Some(Ok(()))
            }
            _ => None,
        }
    }

    fn assign(&mut self, keyword: &str, args: &[Word], replace: bool) -> Result<(), Remark> {
        let [name, value, surplus @ ..] = args else {
            let text = format!("'{keyword}' expects a name and a value.");
            return Err(Remark::Error(text));
        };
        check_name(keyword, &name.text)?;
        if replace || self.get(&name.text).is_none() {
            let value = Some(value.text.clone());
            self.changed.insert(name.text.clone(), value);
        }
        surplus.first().map_or(Ok(()), |word| {
            let text = format!(
                "'{keyword}' takes one value, '{}' is ignored: a value of several words needs \
                 quotes.",
                word.text
            );
            Err(Remark::Warning(text))
        })
    }

    fn remove(&mut self, args: &[Word]) -> Result<(), Remark> {
        if args.is_empty() {
            let text = "'unsetenv' expects at least one variable name.";
            return Err(Remark::Error(text.to_owned()));
        }
        for name in args {
            check_name("unsetenv", &name.text)?;
            self.changed.insert(name.text.clone(), None);
        }
        Ok(())
    }

    /// Keeps the variables that are named and no others.
    fn reset(&mut self, names: &[Word]) {
        let kept = names
            .iter()
            .map(|name| (name.text.clone(), self.get(&name.text)))
            .collect();
        self.changed = kept;
        self.is_reset = true;
    }
}

/// The environment of a process can't hold such a name.
fn check_name(keyword: &str, name: &str) -> Result<(), Remark> {
    if name.contains('=') {
        let text = format!("'{keyword}' : '=' is not permitted in a variable's name ('{name}').");
        return Err(Remark::Error(text));
    }
    Ok(())
}
