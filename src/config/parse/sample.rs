//! Expressions in log lines: `%[src,ipmask(24)]`, `%[be_name]`, `%[str(a text)]`.
//!
//! The addresses of the client's connection are read by the parser of hash keys, converters
//! included. The others are what a session's record holds.

use super::expression;
use crate::config::plan::Value;
use crate::config::raw::arguments;

/// The type of the field with the host name that a client asked for, in a PROXY header.
const AUTHORITY: u8 = 0x02;
/// That of the id that a client has given its connection.
const UNIQUE_ID: u8 = 0x05;

/// Those that other parsers read.
const OF_ADDRESSES: [&str; 4] = ["src", "src_port", "dst", "dst_port"];

/// Those without an argument.
#[rustfmt::skip]
const FETCHES: &[(&str, Value)] = &[
    ("always_false", Value::Boolean(false)),
    ("always_true", Value::Boolean(true)),
    ("bc_dst", Value::ServerAddress),
    ("bc_dst_port", Value::ServerPort),
    ("bc_src", Value::SourceAddress),
    ("bc_src_port", Value::SourcePort),
    ("be_id", Value::BackendId),
    ("be_name", Value::BackendName),
    ("bytes_in", Value::BytesIn),
    ("bytes_out", Value::BytesOut),
    ("fc_err", Value::ErrorNumber),
    ("fc_err_str", Value::ErrorText),
    ("fc_pp_authority", Value::HeaderField(AUTHORITY)),
    ("fc_pp_unique_id", Value::HeaderField(UNIQUE_ID)),
    ("fe_id", Value::FrontendId),
    ("fe_name", Value::FrontendName),
    ("hostname", Value::Hostname),
    ("so_id", Value::ListenerId),
    ("so_name", Value::ListenerName),
    ("srv_id", Value::ServerId),
    ("srv_name", Value::ServerName),
    ("unique-id", Value::UniqueId),
];

/// Reads what stands in brackets; the error is a sentence without its full stop.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let fault = |fault: String| format!("failed to parse sample expression <{text}> : {fault}");
    let (name, rest) = text.split_at(text.find(['(', ',']).unwrap_or(text.len()));
    if name.is_empty() {
        return Err(fault("missing fetch method".to_owned()));
    }
    if OF_ADDRESSES.contains(&name) {
        return expression::parse(text)
            .map(Value::Expression)
            .map_err(fault);
    }
    let (list, rest) = match rest.strip_prefix('(') {
        None => (Vec::new(), rest),
        Some(inner) => {
            let (list, length) = arguments::list(inner)
                .map_err(|_| fault(format!("fetch method '{name}' : expected ')'")))?;
            (list, &inner[length..])
        }
    };
    let rest = rest.trim_start_matches(',');
    if !rest.is_empty() {
        return Err(fault(format!(
            "converters behind '{name}' are not implemented in Tidegate yet; they are behind 'src', \
             'src_port', 'dst' and 'dst_port'"
        )));
    }
    let arguments: Vec<&str> = list.iter().map(String::as_str).collect();
    value(name, &arguments).map_err(fault)
}

fn value(name: &str, arguments: &[&str]) -> Result<Value, String> {
    if let Some((_, value)) = FETCHES.iter().find(|(known, _)| *known == name) {
        return match arguments {
            [] | [""] => Ok(value.clone()),
            [surplus, ..] => Err(format!(
                "fetch method '{name}' : expected ')' before '{surplus}'"
            )),
        };
    }
    let expects = |kind: &str| format!("invalid args in fetch method '{name}' : expects {kind}");
    match (name, arguments) {
        ("str", [text]) => Ok(Value::Text((*text).to_owned())),
        ("str", _) => Err(expects("a text")),
        ("int", [text]) => match text.parse() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => Err(expects("an integer")),
        },
        ("int", _) => Err(expects("an integer")),
        ("bool", ["true" | "1"]) => Ok(Value::Boolean(true)),
        ("bool", ["false" | "0"]) => Ok(Value::Boolean(false)),
        ("bool", _) => Err(expects("true or false")),
        ("fc_pp_tlv", [text]) => field(text).ok_or_else(|| expects("the type of a field")),
        ("fc_pp_tlv", _) => Err(expects("the type of a field")),
        // That it is unknown, or not there yet, says the other parser.
        _ => Err(match expression::parse(name) {
            Err(fault) => fault,
            Ok(_) => format!("fetch method '{name}' is not for log lines"),
        }),
    }
}

/// The type of a field of PROXY headers, as a number or by its name.
fn field(text: &str) -> Option<Value> {
    let kind = match text {
        "AUTHORITY" => AUTHORITY,
        "UNIQUE_ID" => UNIQUE_ID,
        _ => match text.strip_prefix("0x") {
            Some(digits) => u8::from_str_radix(digits, 16).ok()?,
            None => text.parse().ok()?,
        },
    };
    Some(Value::HeaderField(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_with_and_without_arguments() {
        let expression = expression::parse("src,ipmask(24)").unwrap();
        for (text, expected) in [
            ("src,ipmask(24)", Value::Expression(expression)),
            ("fe_name", Value::FrontendName),
            ("fe_name()", Value::FrontendName),
            ("str(a, b)", Value::Text(String::new())),
            ("str('a, b')", Value::Text("a, b".to_owned())),
            ("int(-5)", Value::Integer(-5)),
            ("bool(true)", Value::Boolean(true)),
            ("fc_pp_tlv(0xE0)", Value::HeaderField(0xe0)),
            ("fc_pp_tlv(5)", Value::HeaderField(UNIQUE_ID)),
            ("fc_pp_tlv(AUTHORITY)", Value::HeaderField(AUTHORITY)),
        ] {
            match parse(text) {
                Ok(value) => assert_eq!(value, expected, "{text}"),
                Err(_) => assert_eq!(text, "str(a, b)"),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "missing fetch method"),
            ("foo", "unknown fetch method 'foo'"),
            ("fe_conn", "'fe_conn' is not implemented in Tidegate yet"),
            ("req.ssl_sni", "'req.ssl_sni' is not implemented"),
            ("src,foo", "unknown converter 'foo'"),
            ("fe_name,upper", "converters behind 'fe_name'"),
            ("fe_name(x)", "expected ')' before 'x'"),
            ("int(x)", "expects an integer"),
            ("bool(x)", "expects true or false"),
            ("fc_pp_tlv(256)", "expects the type of a field"),
            ("str", "expects a text"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(part), "{text}: {fault}");
            assert!(fault.contains(&format!("<{text}>")), "{fault}");
        }
    }
}
