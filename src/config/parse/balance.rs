//! `balance`, `hash-type` and `hash-balance-factor`.

use super::{Call, Complaint, Outcome, Parser, expression};
use crate::config::draft::BalanceWord;
use crate::config::keywords::Standing;
use crate::config::plan::{Balance, HashFunction, HashKind, HashMethod};
use crate::config::raw::arguments::{self, Fault};
use crate::config::values::units;

/// Where a `hash-balance-factor` ends: servers are as good as unbounded long before.
const FACTOR_MAX: u64 = 65_535;

/// What is said of a thing that can't be left out.
pub(super) fn needed(thing: &str) -> String {
    let message = Standing::Needed.message(thing);
    message.map_or_else(String::new, |(_, text)| text)
}

pub(in crate::config) fn balance(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let word = call.arg(0);
    let (bare, arguments) = match word.split_once('(') {
        Some((bare, arguments)) => (bare, Some(arguments)),
        None => (word, None),
    };
    let value = match bare {
        // As if there were no such line, whatever is inherited.
        "" if call.args.is_empty() => {
            parser.current.settings.balance = None;
            return Ok(());
        }
        "roundrobin" => BalanceWord::RoundRobin,
        "static-rr" => BalanceWord::StaticRr,
        "leastconn" => BalanceWord::LeastConn,
        "peak-ewma" => BalanceWord::PeakEwma,
        "first" => BalanceWord::First,
        "random" => return random(parser, call, arguments),
        "source" => BalanceWord::Source,
        "hash" if arguments.is_none() => return hash(parser, call),
        "rdp-cookie" | "sticky" | "log-hash" => {
            return Err(call.complain(0, needed(&format!("'balance {bare}'"))));
        }
        "uri" | "url_param" | "hdr" => {
            let text = format!("'balance {bare}' needs 'mode http', which is not supported.");
            return Err(call.complain(0, text));
        }
        _ => {
            let text = "balance only supports 'roundrobin', 'static-rr', 'leastconn', 'first', \
                        'random', 'source' and 'hash' options.";
            return Err(call.complain(0, text));
        }
    };
    if arguments.is_some() {
        let text = format!("'balance {bare}' doesn't take an argument in parentheses.");
        return Err(call.complain(0, text));
    }
    ends(call, 1)?;
    parser.current.settings.balance = Some(value);
    Ok(())
}

/// Refuses words from argument `first` on.
fn ends(call: &Call<'_>, first: usize) -> Outcome {
    let Some(surplus) = call.args.get(first) else {
        return Ok(());
    };
    let (name, word) = (call.keyword.name, &surplus.text);
    let text = format!("'{name}' cannot handle unexpected argument '{word}'.");
    Err(Complaint::about(surplus, text))
}

/// `random[(<draws>)]`; empty parentheses leave the default.
fn random(parser: &mut Parser<'_>, call: &Call<'_>, arguments: Option<&str>) -> Outcome {
    let fault = |text: &str| call.complain(0, format!("balance random : {text}."));
    let draws = match arguments {
        None => Balance::DRAWS_DEFAULT,
        Some(text) => {
            let list = arguments::list(text).map_err(|fault_of_list| match fault_of_list {
                Fault::Parenthesis | Fault::Quote(_) => fault("missing closing parenthesis"),
            })?;
            let (arguments, length) = list;
            if let Some(c) = text[length..].chars().next() {
                return Err(fault(&format!("unexpected character '{c}' after argument")));
            }
            match &arguments[..] {
                [one] if one.is_empty() => Balance::DRAWS_DEFAULT,
                [one] => {
                    let stray = one.chars().find(|c| !c.is_ascii_digit());
                    if let Some(c) = stray {
                        let text = format!("unexpected character '{c}' after argument");
                        return Err(fault(&text));
                    }
                    // What doesn't fit is more than are drawn in any case.
                    one.parse().unwrap_or(u32::MAX)
                }
                _ => return Err(fault("unexpected character ',' after argument")),
            }
        }
    };
    if draws == 0 {
        return Err(fault("number of draws must be at least 1"));
    }
    ends(call, 1)?;
    if draws > Balance::DRAWS_MAX {
        let most = Balance::DRAWS_MAX;
        let text = format!("balance random : {most} servers are drawn, more make no difference.");
        let place = &call.line.place;
        parser.report.warning(place, call.args.first(), text);
    }
    let draws = draws.min(Balance::DRAWS_MAX);
    parser.current.settings.balance = Some(BalanceWord::Random(draws));
    Ok(())
}

/// `hash <expression>`
fn hash(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let Some(word) = call.args.get(1) else {
        return Err(call.complain(0, "balance hash requires a sample expression."));
    };
    if let Some(surplus) = call.args.get(2) {
        let got = &surplus.text;
        let text = format!("balance hash takes no other argument (got '{got}').");
        return Err(Complaint::about(surplus, text));
    }
    let expression = expression::parse(&word.text).map_err(|fault| {
        let written = &word.text;
        let text = format!("failed to parse 'balance hash' expression '{written}' : {fault}.");
        Complaint::about(word, text)
    })?;
    parser.current.settings.balance = Some(BalanceWord::Hash(expression));
    Ok(())
}

/// `hash-type <kind> [<function> [avalanche]]`
pub(in crate::config) fn hash_type(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let kind = match call.arg(0) {
        "map-based" => HashKind::MapBased,
        "consistent" => HashKind::Consistent,
        "maglev" => HashKind::Maglev,
        "avalanche" => {
            let text = "experimental feature 'hash-type avalanche' is not supported anymore, \
                        please use 'hash-type map-based sdbm avalanche' instead.";
            return Err(call.complain(0, text));
        }
        _ => {
            let text = "'hash-type' only supports 'consistent', 'map-based' and 'maglev'.";
            return Err(call.complain(0, text));
        }
    };
    let function = match call.arg(1) {
        "" | "sdbm" => HashFunction::Sdbm,
        "djb2" => HashFunction::Djb2,
        "wt6" => HashFunction::Wt6,
        "crc32" => HashFunction::Crc32,
        "none" => HashFunction::None,
        _ => {
            let text = "'hash-type' only supports 'sdbm', 'djb2', 'crc32', 'none', or 'wt6' hash \
                        functions.";
            return Err(call.complain(1, text));
        }
    };
    let avalanche = match call.arg(2) {
        "" => false,
        "avalanche" => true,
        _ => {
            let text = "'hash-type' only supports 'avalanche' as a modifier for hash functions.";
            return Err(call.complain(2, text));
        }
    };
    parser.current.settings.hash_method = Some(HashMethod {
        kind,
        function,
        avalanche,
    });
    Ok(())
}

pub(in crate::config) fn hash_balance_factor(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let factor = units::integer(call.arg(0), FACTOR_MAX).and_then(|n| u32::try_from(n).ok());
    let Some(factor) = factor else {
        let text = format!("'hash-balance-factor' expects an integer argument up to {FACTOR_MAX}.");
        return Err(call.complain(0, text));
    };
    if (1..=100).contains(&factor) {
        let text = "'hash-balance-factor' must be 0 or greater than 100.";
        return Err(call.complain(0, text));
    }
    parser.current.settings.hash_factor = factor;
    Ok(())
}
