//! What a request for metrics asks for: the parameters of HAProxy's exporter.

use form_urlencoded::parse;

/// Parameters that are looked at; a request has fewer.
const PARAMETERS_MAX: usize = 64;

/// The objects that metrics are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Scope {
    pub(super) global: bool,
    pub(super) frontend: bool,
    pub(super) listener: bool,
    pub(super) backend: bool,
    pub(super) server: bool,
}

impl Scope {
    const ALL: Scope = Scope {
        global: true,
        frontend: true,
        listener: true,
        backend: true,
        server: true,
    };
}

/// A request's parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Query {
    /// `scope=`, everything where there is none.
    pub(super) scope: Scope,
    /// `metrics=`: the only ones that are wanted; empty = all.
    wanted: Vec<String>,
    /// The same with a `-`: those that are not.
    unwanted: Vec<String>,
    /// `no-maint`: servers in maintenance are left out.
    pub(super) no_maintenance: bool,
}

impl Query {
    /// Reads what follows the `?`; `None` = it can't be followed.
    pub(super) fn read(text: &str) -> Option<Query> {
        let mut query = Query {
            scope: Scope::ALL,
            wanted: Vec::new(),
            unwanted: Vec::new(),
            no_maintenance: false,
        };
        let mut is_first_scope = true;
        for (number, (name, value)) in parse(text.as_bytes()).enumerate() {
            if number == PARAMETERS_MAX {
                return None;
            }
            match &*name {
                "scope" => {
                    if std::mem::take(&mut is_first_scope) {
                        query.scope = Scope::default();
                    }
                    let scope = &mut query.scope;
                    match &*value {
                        "" => {}
                        "*" => *scope = Scope::ALL,
                        "global" => scope.global = true,
                        "frontend" => scope.frontend = true,
                        "listener" => scope.listener = true,
                        "backend" => scope.backend = true,
                        "server" => scope.server = true,
                        // There are none of those here.
                        "sticktable" | "resolver" => {}
                        _ => return None,
                    }
                }
                "metrics" => {
                    for name in value.split(',').filter(|name| !name.is_empty()) {
                        match name.strip_prefix('-') {
                            Some(name) => query.unwanted.push(name.to_owned()),
                            None => query.wanted.push(name.to_owned()),
                        }
                    }
                }
                "no-maint" => query.no_maintenance = true,
                // `extra-counters` and `desc-labels` ask for what there is none of; what else comes
                // is for somebody on the way.
                _ => {}
            }
        }
        Some(query)
    }

    /// Whether a metric is wanted.
    pub(super) fn wants(&self, name: &str) -> bool {
        let is = |wanted: &String| wanted == name;
        (self.wanted.is_empty() || self.wanted.iter().any(is)) && !self.unwanted.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Query {
        Query::read(text).expect("a good query")
    }

    #[test]
    fn scopes_add_up_and_begin_with_everything() {
        assert_eq!(read("").scope, Scope::ALL);
        assert_eq!(read("scope=server&scope=*").scope, Scope::ALL);
        assert_eq!(read("scope=").scope, Scope::default());
        let two = Scope {
            global: true,
            server: true,
            ..Scope::default()
        };
        assert_eq!(read("scope=global&x=y&scope=server").scope, two);
        assert_eq!(Query::read("scope=nothing"), None);
    }

    #[test]
    fn metrics_are_named_or_left_out() {
        let only = read("metrics=a%2Cb&metrics=c,-b");
        assert!(only.wants("a") && only.wants("c"));
        assert!(!only.wants("b") && !only.wants("d"));
        let but = read("metrics=-a&no-maint");
        assert!(but.wants("d") && !but.wants("a") && but.no_maintenance);
    }

    #[test]
    fn there_is_an_end_to_parameters() {
        assert_eq!(Query::read(&"a=b&".repeat(PARAMETERS_MAX + 1)), None);
        assert!(Query::read(&"a=b&".repeat(PARAMETERS_MAX)).is_some());
    }
}
