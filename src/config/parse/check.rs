//! The options that say how servers are checked; the last one of a proxy wins.

use super::{Call, Complaint, Outcome, Parser};
use crate::config::draft_check::{CheckKind, HttpSend, MysqlAge, MysqlUser};
use crate::config::raw::Prefix;

/// The hello where none is given whole.
const HELLO_DEFAULT: &str = "HELO localhost";

/// Longest name of a user: that of MySQL has 80 characters of up to three bytes, that of PostgreSQL
/// 63 bytes.
const USER_BYTES_MAX: usize = 255;

/// Longest part of a DNS name between its dots.
const DNS_LABEL_BYTES_MAX: usize = 63;

/// Longest DNS name as it is written: 255 bytes with the lengths of its labels, one of which stands
/// before the first label and one, of the root, at the end.
const DNS_NAME_BYTES_MAX: usize = 253;

pub(in crate::config) fn option(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let name = name.strip_prefix("option ").unwrap_or(name);
    if call.line.prefix != Prefix::Set {
        let text = format!("negation/default is not supported for option '{name}'.");
        return Err(text.into());
    }
    let kind = match name {
        "tcp-check" => CheckKind::Tcp,
        "httpchk" => CheckKind::Http(request(call)?),
        "redis-check" => CheckKind::Redis,
        "smtpchk" => CheckKind::Smtp(hello(call)),
        "mysql-check" => CheckKind::Mysql(mysql_user(call)?),
        "pgsql-check" => CheckKind::Pgsql(pgsql_user(call)?),
        "ldap-check" => CheckKind::Ldap,
        "udp-check" => CheckKind::Udp,
        "dns-check" => CheckKind::Dns(dns_name(call)?),
        "dht-check" => CheckKind::Dht,
        _ => CheckKind::TlsHello,
    };
    let check = &mut parser.current.settings.check_kind;
    // Lines that a `defaults` section has for its kind of check are not for another one, and those
    // of HTTP go with the request.
    let same = std::mem::discriminant(&check.kind) == std::mem::discriminant(&kind);
    if !same || matches!(kind, CheckKind::Http(_)) {
        check.tcp.forget_inherited();
        check.http.forget_inherited();
        check.udp.forget_inherited();
    }
    check.kind = kind;
    check.own = true;
    Ok(())
}

/// Whether a text may stand in a line of a protocol.
pub(super) fn is_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

/// `[HELO|EHLO <domain>]`; what is neither is as if it weren't there, as HAProxy has it.
fn hello(call: &Call<'_>) -> String {
    match (call.arg(0), call.arg(1)) {
        (word @ ("HELO" | "EHLO"), domain) if !domain.is_empty() && is_line(domain) => {
            format!("{word} {domain}")
        }
        _ => HELLO_DEFAULT.to_owned(),
    }
}

/// `[[<method>] <uri> [<version>]]`; fields may follow the version after the end of its line.
fn request(call: &Call<'_>) -> Result<HttpSend, Complaint> {
    let mut request = HttpSend::default();
    let own = |text: &str| Some(text.to_owned());
    let (method, uri, version) = match call.args.len() {
        0 => return Ok(request),
        1 => (None, call.arg(0), ""),
        _ => (own(call.arg(0)), call.arg(1), call.arg(2)),
    };
    let mut lines = version.split("\r\n");
    request.method = method;
    request.uri = own(uri);
    request.version = lines.next().filter(|text| !text.is_empty()).and_then(own);
    for line in lines.filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            let text = format!("'option httpchk' : unable to parse the request '{line}'.");
            return Err(call.complain(2, text));
        };
        let field = (name.to_owned(), value.trim().to_owned());
        request.headers.push(field);
    }
    super::http_check::check_request(&request).map_err(|fault| {
        let word = call.args.first().cloned();
        let text = format!("'option httpchk' : {fault}");
        Complaint { text, word }
    })?;
    Ok(request)
}

/// `[user <name> [pre-41|post-41|post-80]]`
fn mysql_user(call: &Call<'_>) -> Result<Option<MysqlUser>, Complaint> {
    match call.arg(0) {
        "" => return Ok(None),
        "user" => {}
        other => {
            let text = format!(
                "'option mysql-check' only supports optional values: 'user' (got '{other}')."
            );
            return Err(call.complain(0, text));
        }
    }
    if call.args.len() < 2 {
        return Err("'option mysql-check user' expects <username> as argument.".into());
    }
    let age = match call.arg(2) {
        "" | "post-41" => MysqlAge::Post41,
        "pre-41" => MysqlAge::Pre41,
        "post-80" => MysqlAge::Post80,
        other => {
            let text = format!(
                "keyword 'user' only supports 'post-41', 'post-80' and 'pre-41' (got '{other}')."
            );
            return Err(call.complain(2, text));
        }
    };
    let name = user(call)?;
    Ok(Some(MysqlUser { name, age }))
}

/// A name as a query of DNS can hold it (RFC 1035, section 2.3.4), without its last dot.
fn dns_name(call: &Call<'_>) -> Result<String, Complaint> {
    let text = call.arg(0);
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| !label.is_empty() && label.len() <= DNS_LABEL_BYTES_MAX;
    let is_name = name.len() <= DNS_NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_graphic())
        && name.split('.').all(is_label);
    if is_name || text == "." {
        return Ok(name.to_owned());
    }
    let text = format!("'option dns-check' expects a name to ask for (got '{text}').");
    Err(call.complain(0, text))
}

/// `user <name>`
fn pgsql_user(call: &Call<'_>) -> Result<String, Complaint> {
    if call.args.len() < 2 {
        return Err("'option pgsql-check' expects 'user <username>' as argument.".into());
    }
    if call.arg(0) != "user" {
        let text = "'option pgsql-check' only supports optional values: 'user'.";
        return Err(call.complain(0, text));
    }
    user(call)
}

fn user(call: &Call<'_>) -> Result<String, Complaint> {
    let name = call.arg(1);
    if name.len() > USER_BYTES_MAX {
        let text = format!(
            "'{}' : a user's name has at most {USER_BYTES_MAX} bytes.",
            call.keyword.name
        );
        return Err(call.complain(1, text));
    }
    Ok(name.to_owned())
}
