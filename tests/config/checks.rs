//! What a check's lines make of it.

use std::fmt::Write;

use tidegate::config::plan::{Action, Answer, Check, Ending, Plan, UdpHeader};

use crate::world::plan;

const TIMES: &str = "  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n";

/// The check of a backend's first server.
fn check<'a>(plan: &'a Plan, backend: &str) -> &'a Check {
    let proxy = plan.proxies.iter().find(|proxy| *proxy.name == *backend);
    let back = proxy.and_then(|proxy| proxy.back.as_ref());
    let check = back.and_then(|back| back.servers[0].check.as_ref());
    check.unwrap_or_else(|| panic!("no check in {backend}"))
}

/// The steps of a backend's check in short.
fn steps(plan: &Plan, backend: &str) -> String {
    let Some(scripted) = &check(plan, backend).scripted else {
        return "connects".to_owned();
    };
    let mut text = String::new();
    for step in &scripted.script.steps {
        let number = step.number;
        match &step.action {
            Action::Connect(connect) => {
                let port = connect
                    .port
                    .map_or(String::new(), |port| format!(" {port}"));
                write!(text, "{number} connect{port}").unwrap();
            }
            Action::Send(bytes) => {
                write!(text, "{number} send {}", bytes.escape_ascii()).unwrap();
            }
            Action::Expect(expect) => match &expect.answer {
                Answer::Content(content) => {
                    write!(text, "{number} expect {:?}", content.pattern).unwrap();
                }
                Answer::Http(answer) => {
                    write!(text, "{number} expect {:?}", answer.wanted).unwrap();
                }
                answer => write!(text, "{number} expect {answer:?}").unwrap(),
            },
        }
        if !step.comment.is_empty() {
            write!(text, " ({})", step.comment).unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn steps_are_numbered_as_their_lines_and_the_first_one_connects() {
    let plan = plan(&format!(
        "listen l\n{TIMES}  bind :80\n  option tcp-check\n  tcp-check comment a\n  \
         tcp-check send x comment own\n  tcp-check comment b\n  tcp-check comment c\n  \
         tcp-check expect string y\n  tcp-check send z\n  server s 1.1.1.1:81 check\n"
    ));
    assert_eq!(
        steps(&plan, "l"),
        "0 connect\n2 send x (own)\n5 expect Text(\"y\") (c)\n6 send z\n"
    );
}

#[test]
fn inherited_steps_hold_until_there_are_own_ones_or_another_kind() {
    let plan = plan(&format!(
        "defaults\n{TIMES}  option tcp-check\n  tcp-check connect port 25\n  tcp-check send x\n\
         listen same\n  bind :80\n  server s 1.1.1.1:81 check\n\
         backend again\n  option tcp-check\n  server s 1.1.1.1:81 check\n\
         backend own\n  tcp-check send y\n  tcp-check send z\n  server s 1.1.1.1:81 check\n\
         backend other\n  option redis-check\n  option tcp-check\n  server s 1.1.1.1:81 check\n\
         backend http\n  option httpchk\n  server s 1.1.1.1:81 check\n\
         defaults\n{TIMES}\nbackend none\n  server s 1.1.1.1:81 check\n"
    ));
    let inherited = "1 connect 25\n2 send x\n";
    assert_eq!(steps(&plan, "same"), inherited);
    assert_eq!(steps(&plan, "again"), inherited);
    assert_eq!(steps(&plan, "own"), "0 connect\n1 send y\n2 send z\n");
    assert_eq!(steps(&plan, "other"), "0 connect\n");
    let request = "0 send OPTIONS / HTTP/1.0\\r\\n\\r\\n\n";
    let http = format!("0 connect\n{request}0 expect Statuses([(200, 399)])\n");
    assert_eq!(steps(&plan, "http"), http);
    assert_eq!(steps(&plan, "none"), "connects");
}

#[test]
fn requests_of_http_are_made_of_the_option_and_of_lines() {
    let backend =
        |name: &str, lines: &str| format!("backend {name}\n{lines}  server s 1.1.1.1:81 check\n");
    let plan = plan(&format!(
        "listen l\n{TIMES}  bind :80\ndefaults\n{TIMES}{}{}{}{}",
        backend("uri", "  option httpchk /x\n"),
        backend(
            "fields",
            "  option httpchk GET /x \"HTTP/1.1\\r\\nHost: a\"\n  http-check send uri /y hdr B c\n  \
             http-check expect rstatus ^2\n"
        ),
        backend(
            "body",
            "  option httpchk\n  http-check send meth POST hdr Content-Length 9 hdr Connection x \
             ver HTTP/1.1 body abc\n"
        ),
        backend(
            "twice",
            "  option httpchk GET /x\n  http-check connect port 82\n  http-check send hdr A b\n  \
             http-check expect status 200\n  http-check connect\n  http-check send uri /z\n"
        ),
    ));
    let statuses = "0 expect Statuses([(200, 399)])\n";
    assert_eq!(
        steps(&plan, "uri"),
        format!("0 connect\n0 send OPTIONS /x HTTP/1.0\\r\\n\\r\\n\n{statuses}")
    );
    assert_eq!(
        steps(&plan, "fields"),
        "0 connect\n1 send GET /y HTTP/1.1\\r\\nHost: a\\r\\nB: c\\r\\nconnection: close\\r\\n\\r\\n\n\
         2 expect StatusRegex(/^2/)\n"
    );
    assert_eq!(
        steps(&plan, "body"),
        format!(
            "0 connect\n1 send POST / HTTP/1.1\\r\\nConnection: x\\r\\ncontent-length: 3\\r\\n\\r\\nabc\n\
             {statuses}"
        )
    );
    assert_eq!(
        steps(&plan, "twice"),
        format!(
            "1 connect 82\n2 send GET /x HTTP/1.0\\r\\nA: b\\r\\n\\r\\n\n\
             3 expect Statuses([(200, 200)])\n4 connect\n\
             5 send OPTIONS /z HTTP/1.0\\r\\n\\r\\n\n{statuses}"
        )
    );
}

#[test]
fn the_last_kind_of_check_wins() {
    let plan = plan(&format!(
        "listen l\n{TIMES}  bind :80\n  option httpchk\n  option smtpchk EHLO a.test\n  \
         server s 1.1.1.1:81 check\n"
    ));
    assert_eq!(
        steps(&plan, "l"),
        "0 connect\n0 expect Smtp\n0 send EHLO a.test\\r\\n\n0 expect Smtp\n0 send QUIT\\r\\n\n\
         0 expect Smtp\n"
    );
}

/// The forms of the protocol's description, with the user `bob`.
#[test]
fn a_login_of_mysql_has_the_form_of_its_age() {
    let login = |age: &str| {
        let plan = plan(&format!(
            "listen l\n{TIMES}  bind :80\n  option mysql-check user bob {age}\n  \
             server s 1.1.1.1:81 check\n"
        ));
        let scripted = check(&plan, "l").scripted.clone().expect("a script");
        let goodbye = Ending::Goodbye(vec![1, 0, 0, 0, 1]);
        assert_eq!(scripted.script.ending, goodbye);
        let steps = &scripted.script.steps;
        let sent = steps.iter().find_map(|step| match &step.action {
            Action::Send(bytes) => Some(bytes.clone()),
            _ => None,
        });
        sent.expect("a login")
    };
    assert_eq!(login("pre-41"), *b"\x09\0\0\x01\x01\0\xff\xff\xffbob\0");
    let new = login("");
    assert!(new.starts_with(b"\x25\0\0\x01\x01\x82\0\0"));
    assert_eq!(new[8..13], [0, 0, 0, 1, 33]);
    assert!(new.ends_with(b"\0bob\0\0"));
    assert_eq!(new.len(), 4 + 0x25);
    assert_eq!(login("post-41"), new);
    let newest = login("post-80");
    assert_eq!(newest[4..8], [1, 0x82, 8, 0]);
    assert!(newest.ends_with(b"bob\0\0caching_sha2_password\0"));
}

#[test]
fn steps_with_ports_of_their_own_need_none_of_the_server() {
    let plan = plan(&format!(
        "listen l\n{TIMES}  bind :80\n  timeout check 3s\n  option tcp-check\n  \
         tcp-check connect port 25\n  server s 1.1.1.1 check inter 700\n"
    ));
    let check = check(&plan, "l");
    assert_eq!(check.address.to_string(), "1.1.1.1:0");
    let scripted = check.scripted.as_ref().expect("a script");
    assert_eq!(scripted.timeout_connect_ms, 700);
    assert_eq!(scripted.timeout_check_ms, Some(3000));
}

/// There is no connect whose bound could count: the time of the answer is that of the whole.
#[test]
fn a_check_by_datagrams_has_one_bound() {
    let bound = |lines: &str, words: &str| {
        let plan = plan(&format!(
            "listen l\n{TIMES}  mode udp\n  bind :80\n{lines}  server s 1.1.1.1:81 check {words}\n"
        ));
        let check = check(&plan, "l");
        (check.timeout_ms, check.header, check.datagram.is_some())
    };
    let (first, every) = (UdpHeader::First, UdpHeader::Every);
    assert_eq!(bound("", "inter 3s"), (3000, first, true));
    assert_eq!(bound("  timeout check 5s\n", ""), (5000, first, true));
    let header = "  timeout check 1s\n  udp-proxy-header every\n";
    assert_eq!(bound(header, "send-proxy-v2"), (1000, every, true));
    // Over TCP it is that of the connect.
    assert_eq!(bound("", "port 82 inter 3s"), (3000, first, false));
}
