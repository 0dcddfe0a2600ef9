//! Expressions that make a key of a connection: `src,ipmask(24)`.
//!
//! A fetch method and converters behind it, as HAProxy writes them. What needs more than the
//! connection's addresses is known by name and refused: nothing is read before a server is chosen.

use std::net::Ipv4Addr;

use crate::config::plan::{Calculation, Converter, Digest, Expression, Fetch};
use crate::config::raw::arguments;

/// Beginnings of the names of fetch methods that exist elsewhere.
const ELSEWHERE: &[&str] = &[
    "base",
    "be_",
    "bc_",
    "capture.",
    "cook",
    "dst_",
    "env",
    "fc_",
    "fe_",
    "hdr",
    "http_",
    "method",
    "nbproc",
    "path",
    "payload",
    "query",
    "rand",
    "rdp_cookie",
    "rep",
    "req",
    "res",
    "sc0",
    "sc1",
    "sc2",
    "sc_",
    "shdr",
    "so_",
    "src_",
    "srv_",
    "ssl",
    "str",
    "table_",
    "tcp.",
    "txn.",
    "uniqueid",
    "url",
    "uuid",
    "var",
    "wait_end",
];

/// Converters that exist elsewhere.
const CONVERTERS_ELSEWHERE: &[&str] = &[
    "base64", "bytes", "concat", "digest", "field", "hex", "hmac", "in_table", "iif", "json",
    "lower", "map", "ltrim", "mqtt", "ms_", "regsub", "reverse", "rtrim", "sha", "str", "table_",
    "upper", "url_", "utime", "word", "xxh3",
];

/// Reads an expression; the error is a sentence without its full stop.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let (call, mut rest) = Invocation::read(text, "fetch method")?;
    let mut expression = Expression::new(fetch(&call)?);
    let mut is_address = expression.fetch.is_address();
    let mut is_bytes = expression.fetch.is_bytes();
    // Commas too many are passed over, as HAProxy does.
    loop {
        rest = rest.trim_start_matches(',');
        if rest.is_empty() {
            return Ok(expression);
        }
        let (call, after) = Invocation::read(rest, "converter")?;
        let converter = converter(&call)?;
        if matches!(converter, Converter::Mask { .. }) && !is_address {
            return Err("converter 'ipmask' cannot be applied".to_owned());
        }
        if is_bytes && !converter.takes_bytes() {
            return Err(format!("converter '{}' cannot be applied", call.name));
        }
        is_bytes = false;
        is_address &= matches!(converter, Converter::Mask { .. });
        if !expression.add(converter) {
            let most = Expression::CONVERTERS_MAX;
            return Err(format!("more than {most} converters"));
        }
        rest = after;
    }
}

/// A name with its arguments.
struct Invocation<'a> {
    /// `fetch method` or `converter`, for messages.
    what: &'static str,
    name: &'a str,
    arguments: Vec<String>,
}

impl<'a> Invocation<'a> {
    /// The one that a text begins with, and what follows it.
    fn read(text: &'a str, what: &'static str) -> Result<(Invocation<'a>, &'a str), String> {
        let end = text.find(['(', ',']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let mut call = Invocation {
            what,
            name,
            arguments: Vec::new(),
        };
        let Some(inner) = rest.strip_prefix('(') else {
            return Ok((call, rest));
        };
        let list = arguments::list(inner);
        let (arguments, length) = list.map_err(|_| format!("{what} '{name}' : expected ')'"))?;
        // `()` is no argument.
        call.arguments = match &arguments[..] {
            [one] if one.is_empty() => Vec::new(),
            _ => arguments,
        };
        let rest = &inner[length..];
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(format!("{what} '{name}' : expected ',' before '{rest}'"));
        }
        Ok((call, rest))
    }

    /// Refuses more arguments than so many.
    fn takes(&self, most: usize) -> Result<(), String> {
        match self.arguments.get(most) {
            None => Ok(()),
            Some(surplus) => Err(format!(
                "{} '{}' : expected ')' before '{surplus}'",
                self.what, self.name
            )),
        }
    }

    /// An argument that is a number.
    fn number(&self, index: usize) -> Result<Option<i64>, String> {
        let Some(text) = self.arguments.get(index) else {
            return Ok(None);
        };
        let number = text.parse().map_err(|_| {
            let (name, position) = (self.name, index + 1);
            format!(
                "invalid arg {position} in converter '{name}' : failed to parse '{text}' as type \
                 'integer'"
            )
        })?;
        Ok(Some(number))
    }
}

fn fetch(call: &Invocation<'_>) -> Result<Fetch, String> {
    let fetch = match call.name {
        "src" => Fetch::Source,
        "src_port" => Fetch::SourcePort,
        "dst" => Fetch::Destination,
        "dst_port" => Fetch::DestinationPort,
        "src+port" => Fetch::SourceAndPort,
        "udp.payload" => return payload(call),
        "udp.dht_target" => Fetch::DhtTarget,
        // How long it is in short headers is a setting of the proxy.
        "udp.quic_cid" => Fetch::QuicCid {
            length: Fetch::CID_LENGTH_DEFAULT,
        },
        name if ELSEWHERE.iter().any(|begin| name.starts_with(begin)) => {
            return Err(format!(
                "fetch method '{name}' is not implemented in Tidegate yet; 'src', 'src_port', \
                 'src+port', 'dst' and 'dst_port' are"
            ));
        }
        name => return Err(format!("unknown fetch method '{name}'")),
    };
    call.takes(0)?;
    Ok(fetch)
}

/// `udp.payload(<offset>[,<length>])`; without a length, or with 0, all that follows.
fn payload(call: &Invocation<'_>) -> Result<Fetch, String> {
    call.takes(2)?;
    let number = |index: usize| {
        let text = call.arguments.get(index).map_or("0", String::as_str);
        text.parse::<u16>().map_err(|_| {
            format!(
                "fetch method 'udp.payload' : argument {} is no number from 0 to {} ('{text}')",
                index + 1,
                u16::MAX
            )
        })
    };
    if call.arguments.is_empty() {
        return Err("fetch method 'udp.payload' : expects <offset>,<length>".to_owned());
    }
    Ok(Fetch::UdpPayload {
        offset: number(0)?,
        length: number(1)?,
    })
}

fn converter(call: &Invocation<'_>) -> Result<Converter, String> {
    let (converter, most) = match call.name {
        "ipmask" => (mask(call)?, 2),
        "add" => (calculate(call, Calculation::Add)?, 1),
        "sub" => (calculate(call, Calculation::Sub)?, 1),
        "mul" => (calculate(call, Calculation::Mul)?, 1),
        "div" => (calculate(call, Calculation::Div)?, 1),
        "mod" => (calculate(call, Calculation::Mod)?, 1),
        "and" => (calculate(call, Calculation::And)?, 1),
        "or" => (calculate(call, Calculation::Or)?, 1),
        "xor" => (calculate(call, Calculation::Xor)?, 1),
        "neg" => (Converter::Negate, 0),
        "cpl" => (Converter::Complement, 0),
        "odd" => (Converter::Odd, 0),
        "even" => (Converter::Even, 0),
        "bool" => (Converter::Bool, 0),
        "not" => (Converter::Not, 0),
        "sdbm" => (digest(call, Digest::Sdbm)?, 1),
        "djb2" => (digest(call, Digest::Djb2)?, 1),
        "wt6" => (digest(call, Digest::Wt6)?, 1),
        "crc32" => (digest(call, Digest::Crc32)?, 1),
        "crc32c" => (digest(call, Digest::Crc32c)?, 1),
        // HAProxy takes the lower half of a seed that is larger.
        "xxh32" => (Converter::Xxh32(call.number(0)?.unwrap_or(0) as u32), 1),
        "xxh64" => {
            let seed = call.number(0)?.unwrap_or(0);
            (Converter::Xxh64(seed.cast_unsigned()), 1)
        }
        name if CONVERTERS_ELSEWHERE.iter().any(|c| name.starts_with(c)) => {
            return Err(format!(
                "converter '{name}' is not implemented in Tidegate yet"
            ));
        }
        name => return Err(format!("unknown converter '{name}'")),
    };
    call.takes(most)?;
    Ok(converter)
}

fn calculate(call: &Invocation<'_>, calculation: Calculation) -> Result<Converter, String> {
    let operand = call.number(0).ok().flatten().ok_or_else(|| {
        let name = call.name;
        format!("invalid args in converter '{name}' : expects an integer")
    })?;
    Ok(Converter::Calculate(calculation, operand))
}

fn digest(call: &Invocation<'_>, digest: Digest) -> Result<Converter, String> {
    let avalanche = call.number(0)?.unwrap_or(0);
    Ok(Converter::Digest(digest, avalanche != 0))
}

/// `ipmask(<mask4>[,<mask6>])`, masks as numbers of bits or as IPv4 addresses are written.
fn mask(call: &Invocation<'_>) -> Result<Converter, String> {
    let invalid = |index: usize, kind: &str| match call.arguments.get(index) {
        None => format!(
            "invalid arg 1 in converter 'ipmask' : expected type '{kind}' at position 1, but got \
             nothing"
        ),
        Some(text) => format!(
            "invalid arg {0} in converter 'ipmask' : failed to parse '{text}' as type '{kind}' at \
             position {0}",
            index + 1
        ),
    };
    let bits = |text: &str, most: u8| text.parse::<u8>().ok().filter(|bits| *bits <= most);
    let first = call.arguments.first();
    let v4 = first.and_then(|text| match bits(text, 32) {
        Some(bits) => Some(!u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0)),
        None => text.parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits),
    });
    let v6 = match call.arguments.get(1) {
        None => None,
        Some(text) => Some(bits(text, 128).ok_or_else(|| invalid(1, "IPv6 mask"))?),
    };
    Ok(Converter::Mask {
        v4: v4.ok_or_else(|| invalid(0, "IPv4 mask"))?,
        v6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converters(text: &str) -> Vec<Converter> {
        parse(text).unwrap().converters().collect()
    }

    #[test]
    fn fetches_and_converters() {
        assert_eq!(parse("dst_port").unwrap().fetch, Fetch::DestinationPort);
        let mask = |v4, v6| Converter::Mask { v4, v6 };
        assert_eq!(converters("src,ipmask(24)"), [mask(0xffff_ff00, None)]);
        assert_eq!(converters("src,ipmask(0,64)"), [mask(0, Some(64))]);
        assert_eq!(converters("src,ipmask(32)"), [mask(u32::MAX, None)]);
        let odd = converters("dst,ipmask(255.0.255.0),,neg(),");
        assert_eq!(odd, [mask(0xff00_ff00, None), Converter::Negate]);
        let add = Converter::Calculate(Calculation::Add, -5);
        let wt6 = Converter::Digest(Digest::Wt6, true);
        let seeds = [Converter::Xxh32(u32::MAX), Converter::Xxh64(7)];
        assert_eq!(converters("udp.payload(1,2),wt6(2),add(-5)"), [wt6, add]);
        let all = converters("src_port,add(-5),wt6(2),xxh32(-1),xxh64(7)");
        assert_eq!(all, [add, wt6, seeds[0], seeds[1]]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("foo", "unknown fetch method 'foo'"),
            ("", "unknown fetch method ''"),
            ("src,foo", "unknown converter 'foo'"),
            ("src(", "fetch method 'src' : expected ')'"),
            ("src(1)", "fetch method 'src' : expected ')' before '1'"),
            ("src,odd(1)", "converter 'odd' : expected ')' before '1'"),
            ("src,odd()x", "converter 'odd' : expected ',' before 'x'"),
            ("src_port,ipmask(8)", "converter 'ipmask' cannot be applied"),
            ("src,odd,ipmask(8)", "converter 'ipmask' cannot be applied"),
            ("udp.dht_target,odd", "converter 'odd' cannot be applied"),
            ("src+port,add(1)", "converter 'add' cannot be applied"),
            (
                "udp.payload(0,4),ipmask(8)",
                "converter 'ipmask' cannot be applied",
            ),
            (
                "src,odd,odd,odd,odd,odd,odd,odd,odd,odd",
                "more than 8 converters",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
        for text in ["req.ssl_sni", "path", "hdr(host)", "fc_src"] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains("is not implemented"), "{fault}");
        }
    }
}
