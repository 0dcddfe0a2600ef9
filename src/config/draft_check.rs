//! What a proxy says of its checks while its lines are read.

use super::plan::{ConnectStep, Expect};

/// The check of a proxy's servers.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckDraft {
    pub(super) kind: CheckKind,
    /// Whether the section at hand has said which kind; else it is inherited.
    pub(super) own: bool,
    /// The `tcp-check` lines.
    pub(super) tcp: Rules,
    /// The `http-check` lines.
    pub(super) http: Rules,
    /// The `udp-check` lines.
    pub(super) udp: Rules,
}

impl CheckDraft {
    /// Becomes that of a section that begins from the one that has written it.
    pub(super) fn inherit(&mut self) {
        self.own = false;
        self.udp.own = false;
        self.tcp.own = false;
        self.http.own = false;
    }
}

/// What kind of check it is: the last `option` of them wins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum CheckKind {
    /// It connects.
    #[default]
    Connect,
    /// `option tcp-check`
    Tcp,
    /// `option httpchk` with its words.
    Http(HttpSend),
    /// `option redis-check`
    Redis,
    /// `option smtpchk`: the whole hello.
    Smtp(String),
    /// `option mysql-check`
    Mysql(Option<MysqlUser>),
    /// `option pgsql-check`: the user.
    Pgsql(String),
    /// `option ldap-check`
    Ldap,
    /// `option ssl-hello-chk`
    TlsHello,
    /// `option udp-check`
    Udp,
    /// `option dns-check`: the name, without its last dot.
    Dns(String),
    /// `option dht-check`
    Dht,
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MysqlUser {
    pub(super) name: String,
    pub(super) age: MysqlAge,
}

/// How old the protocol of a login is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MysqlAge {
    /// Before MySQL 4.1.
    Pre41,
    /// From 4.1 on.
    Post41,
    /// From 8.0 on: the method of authentication has a name.
    Post80,
}

/// Lines that belong together.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) list: Vec<Rule>,
    /// Whether the section at hand has written them; else they are inherited.
    pub(super) own: bool,
}

impl Rules {
    /// Adds a line of a section: its first one takes the place of what was inherited.
    pub(super) fn push(&mut self, rule: Rule) {
        if !self.own {
            self.list.clear();
            self.own = true;
        }
        self.list.push(rule);
    }

    /// The steps of this section so far, without comments.
    pub(super) fn own_steps(&self) -> impl DoubleEndedIterator<Item = &RuleStep> {
        let own = self.list.iter().filter(|_| self.own);
        own.filter_map(|rule| match rule {
            Rule::Comment(_) => None,
            Rule::Step(step, _) => Some(step),
        })
    }

    /// Forgets what another section has written.
    pub(super) fn forget_inherited(&mut self) {
        if !self.own {
            self.list.clear();
        }
    }
}

/// A line.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// `comment`: about the line that follows, unless that has one of its own.
    Comment(String),
    /// A step, and its own comment.
    Step(RuleStep, String),
}

/// What a line does.
#[derive(Clone, Debug)]
pub(super) enum RuleStep {
    Connect(ConnectStep),
    Send(Vec<u8>),
    Request(HttpSend),
    Expect(Expect),
}

/// An HTTP request, as far as it is given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct HttpSend {
    pub(super) method: Option<String>,
    pub(super) uri: Option<String>,
    pub(super) version: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<String>,
}
