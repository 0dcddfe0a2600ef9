//! Conditions: `acl` lines and what follows `if` and `unless`. So far they ask for the source
//! address of a connection and nothing else.

use std::path::Path;
use std::sync::Arc;

use super::{Call, Complaint, Outcome, Parser};
use crate::config::FILE_BYTES_MAX;
use crate::config::environment::Environment;
use crate::config::keywords::Standing;
use crate::config::plan::{Network, Networks, SourceCondition, SourceTerm};
use crate::config::raw::SectionKind;
use crate::config::raw::token::Word;

/// Names that need no `acl` line, with whether they are negated, and the networks.
const PREDEFINED: &[(&str, bool, &[&str])] = &[
    ("TRUE", true, &[]),
    ("FALSE", false, &[]),
    ("LOCALHOST", false, &["127.0.0.1/8", "::1"]),
];

/// A named condition: what each of its lines has, or that one of them can't be had yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::config) struct Acl {
    networks: Vec<Arc<Networks>>,
    incomplete: bool,
}

/// `acl <name> src ...`; lines of one name are alternatives. Other criteria are left out, and a
/// condition that needs one of them is refused.
pub(in crate::config) fn acl(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let [name, criterion, rest @ ..] = call.args else {
        return Err("'acl' expects a name, a criterion and values.".into());
    };
    if parser.kind == SectionKind::Defaults && parser.current.name.is_empty() {
        return Err("'acl' not allowed in anonymous 'defaults' section.".into());
    }
    let predefined = PREDEFINED.iter().any(|(known, ..)| *known == name.text);
    if predefined || matches!(name.text.as_str(), "or" | "||" | "{" | "}") {
        let text = format!("'acl' : name '{}' has a meaning of its own.", name.text);
        return Err(Complaint::about(name, text));
    }
    let found = if criterion.text == "src" {
        let fault = |complaint: Complaint| Complaint {
            text: format!("'acl {}' : {}", name.text, complaint.text),
            ..complaint
        };
        Some(source(parser.environment, rest).map_err(fault)?)
    } else {
        let thing = format!("acl {} {}", name.text, criterion.text);
        parser.not_working(call.line, criterion, &thing, Standing::Later(""));
        None
    };
    let acls = &mut parser.current.settings.acls;
    let acl = acls.entry(name.text.clone()).or_default();
    match found {
        Some(networks) => acl.networks.push(Arc::new(networks)),
        None => acl.incomplete = true,
    }
    Ok(())
}

/// What follows a rule: `if` or `unless` with a condition, or nothing. `what` begins messages.
pub(in crate::config) fn condition(
    parser: &Parser<'_>,
    what: &str,
    words: &[Word],
) -> Result<SourceCondition, Complaint> {
    let in_braces = |brace: &Word, inside: &[Word]| {
        Ok(vec![Arc::new(anonymous(
            parser.environment,
            brace,
            inside,
        )?)])
    };
    let by_name = |word: &Word, name: &str| named(parser, word, name);
    let (unless, alternatives) = rule(parser, what, words, in_braces, by_name)?;
    let term = |(negated, networks)| SourceTerm { negated, networks };
    let terms = |terms: Vec<_>| terms.into_iter().map(term).collect();
    Ok(SourceCondition {
        unless,
        alternatives: alternatives.into_iter().map(terms).collect(),
    })
}

/// The terms of a condition, each with whether it must not hold: all of one of the alternatives.
type Alternatives<T> = Vec<Vec<(bool, T)>>;

/// What follows a rule, of whichever terms: whether it is `unless`, and its alternatives. Terms are
/// made of what stands in braces and of names, of which some are negated by themselves.
pub(super) fn rule<T>(
    parser: &Parser<'_>,
    what: &str,
    words: &[Word],
    in_braces: impl Fn(&Word, &[Word]) -> Result<T, Complaint>,
    by_name: impl Fn(&Word, &str) -> Result<(bool, T), Complaint>,
) -> Result<(bool, Alternatives<T>), Complaint> {
    let Some((first, words)) = words.split_first() else {
        return Ok((false, vec![Vec::new()]));
    };
    let kind = parser.kind.name();
    let place = format!("{kind} '{}'", parser.current.name);
    let unless = match first.text.as_str() {
        "if" => false,
        "unless" => true,
        other => {
            let text = format!("{what} only accepts 'if' or 'unless', in {place} (got '{other}')");
            return Err(Complaint::about(first, text));
        }
    };
    let fault = |complaint: Complaint| Complaint {
        text: format!(
            "{what} : error detected in {place} while parsing '{}' condition : {}",
            first.text, complaint.text
        ),
        word: complaint.word.or_else(|| Some(first.clone())),
    };
    let alternatives = alternatives(words, in_braces, by_name).map_err(fault)?;
    Ok((unless, alternatives))
}

fn alternatives<T>(
    mut words: &[Word],
    in_braces: impl Fn(&Word, &[Word]) -> Result<T, Complaint>,
    by_name: impl Fn(&Word, &str) -> Result<(bool, T), Complaint>,
) -> Result<Alternatives<T>, Complaint> {
    let mut alternatives = vec![Vec::new()];
    let mut negated = false;
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        let mut name = word.text.as_str();
        if matches!(name, "||" | "or") {
            alternatives.push(Vec::new());
            continue;
        }
        while let Some(after) = name.strip_prefix('!') {
            negated = !negated;
            name = after;
        }
        let found = match name {
            // Alone, it belongs to the next word.
            "" => continue,
            "{" => {
                let end = words.iter().position(|word| word.text == "}");
                let end =
                    end.ok_or_else(|| Complaint::about(word, "missing closing '}' in condition"))?;
                let (inside, rest) = words.split_at(end);
                words = &rest[1..];
                in_braces(word, inside)?
            }
            name => {
                let (also, found) = by_name(word, name)?;
                negated ^= also;
                found
            }
        };
        let negated = std::mem::take(&mut negated);
        if let Some(terms) = alternatives.last_mut() {
            terms.push((negated, found));
        }
    }
    if negated || alternatives.iter().any(Vec::is_empty) {
        return Err("a condition is missing".into());
    }
    Ok(alternatives)
}

/// The inside of `{ src ... }`.
pub(super) fn anonymous(
    environment: &dyn Environment,
    brace: &Word,
    words: &[Word],
) -> Result<Networks, Complaint> {
    match words.split_first() {
        None => Err(Complaint::about(brace, "a criterion is missing")),
        Some((criterion, values)) if criterion.text == "src" => source(environment, values),
        Some((criterion, _)) => {
            let text = format!(
                "criterion '{}' is not implemented in Tidegate yet, only 'src' is",
                criterion.text
            );
            Err(Complaint::about(criterion, text))
        }
    }
}

pub(super) fn named(
    parser: &Parser<'_>,
    word: &Word,
    name: &str,
) -> Result<(bool, Vec<Arc<Networks>>), Complaint> {
    let predefined = PREDEFINED.iter().find(|(known, ..)| *known == name);
    if let Some((_, negated, texts)) = predefined {
        let networks = texts.iter().filter_map(|text| Network::parse(text));
        return Ok((*negated, vec![Arc::new(networks.collect())]));
    }
    match parser.current.settings.acls.get(name) {
        None => Err(Complaint::about(word, format!("no such ACL : '{name}'"))),
        Some(acl) if acl.incomplete => {
            let text = format!(
                "ACL '{name}' has a criterion that is not implemented in Tidegate yet, only 'src' \
                 is"
            );
            Err(Complaint::about(word, text))
        }
        Some(acl) => Ok((false, acl.networks.clone())),
    }
}

/// The values of `src`: flags, then addresses, networks, names.
fn source(environment: &dyn Environment, words: &[Word]) -> Result<Networks, Complaint> {
    let mut networks = Vec::new();
    let mut words = words.iter();
    let mut flags = true;
    while let Some(word) = words.next() {
        match word.text.as_str() {
            // Neither changes anything about addresses; names are not looked up after '-n'.
            "-i" | "-n" if flags => {}
            "--" if flags => flags = false,
            "-m" if flags => match words.next() {
                Some(method) if method.text == "ip" => {}
                method => {
                    let text = "'-m' only supports 'ip' for addresses";
                    return Err(Complaint::about(method.unwrap_or(word), text));
                }
            },
            "-f" if flags => {
                let Some(path) = words.next() else {
                    return Err(Complaint::about(word, "'-f' expects a file"));
                };
                let from_file = file(environment, &path.text);
                networks.extend(from_file.map_err(|text| Complaint::about(path, text))?);
            }
            flag if flags && flag.starts_with('-') => {
                let text = format!("flag '{flag}' is not supported for addresses");
                return Err(Complaint::about(word, text));
            }
            value => {
                flags = false;
                let network = Network::parse(value).map(|network| vec![network]);
                let named = || addresses_of(environment, value);
                let found = network.or_else(named);
                networks.extend(found.ok_or_else(|| Complaint::about(word, no_address(value)))?);
            }
        }
    }
    Ok(networks.into_iter().collect())
}

fn no_address(text: &str) -> String {
    format!("'{text}' is not a valid IPv4 or IPv6 address")
}

/// The addresses of a host name.
fn addresses_of(environment: &dyn Environment, name: &str) -> Option<Vec<Network>> {
    // What begins like an address is a mistake in one, not a name.
    let letters = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    let number = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !letters || number {
        return None;
    }
    let ips = environment.resolve(name).ok()?;
    ips.into_iter().map(Network::one).collect()
}

/// A file of addresses and networks, one a line; `#` begins a comment line.
fn file(environment: &dyn Environment, path: &str) -> Result<Vec<Network>, String> {
    let bytes = environment.read(Path::new(path));
    let bytes = bytes.map_err(|cause| format!("failed to open pattern file <{path}>: {cause}"))?;
    if bytes.len() > FILE_BYTES_MAX {
        let text = format!("pattern file <{path}> is larger than {FILE_BYTES_MAX} bytes");
        return Err(text);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            let place = index + 1;
            Network::parse(line)
                .ok_or_else(|| format!("{} at line {place} of file <{path}>", no_address(line)))
        })
        .collect()
}
