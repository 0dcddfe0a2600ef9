//! The keyword table as text: what `tidegate help` prints and what `docs/keywords.md` holds.

use std::fmt::Write;

use super::{FAMILIES, matches, server_parameters};
use super::{
    Keyword, Origin, ParameterHelp, Side, Standing, bind_parameters, closest, keywords, sections,
};

/// A word of the language, of whichever table.
struct Entry {
    /// Where it stands: `global`, `frontend, listen`, `bind line`, ...
    place: &'static str,
    help: ParameterHelp,
    lacks: &'static [&'static str],
}

const PLACES: &[&str] = &[
    "section",
    "global",
    "global, defaults and proxies",
    "defaults and proxies",
    "proxies",
    "defaults, frontend, listen",
    "frontend, listen",
    "defaults, backend, listen",
    "backend, listen",
    "bind line",
    "server line",
];

/// All words, by place and, within it, in the order of the tables.
fn entries() -> Vec<Entry> {
    let of_keyword = |keyword: &Keyword| Entry {
        place: place(keyword),
        help: ParameterHelp {
            name: keyword.name,
            syntax: keyword.syntax,
            default: keyword.default,
            help: keyword.help,
            origin: keyword.origin,
            standing: keyword.standing(),
        },
        lacks: keyword.lacks,
    };
    let of_line = |place| {
        move |help| Entry {
            place,
            help,
            lacks: &[],
        }
    };
    let mut entries: Vec<Entry> = keywords().map(of_keyword).collect();
    entries.extend(sections().map(of_line("section")));
    entries.extend(bind_parameters().map(of_line("bind line")));
    entries.extend(server_parameters().map(of_line("server line")));
    let rank = |entry: &Entry| PLACES.iter().position(|place| *place == entry.place);
    entries.sort_by_key(rank);
    entries
}

fn place(keyword: &Keyword) -> &'static str {
    match (keyword.side, keyword.in_defaults) {
        (Side::Global, _) => "global",
        (Side::Everywhere, _) => "global, defaults and proxies",
        (Side::Both, true) => "defaults and proxies",
        (Side::Both, false) => "proxies",
        (Side::Front, true) => "defaults, frontend, listen",
        (Side::Front, false) => "frontend, listen",
        (Side::Back, true) => "defaults, backend, listen",
        (Side::Back, false) => "backend, listen",
    }
}

/// What becomes of a word, in a few words.
fn standing(standing: Standing) -> String {
    match standing {
        Standing::Works => "works".to_owned(),
        Standing::NoEffect(reason) => format!("accepted, no effect (warning): {reason}"),
        Standing::Later("") => "not yet (warning, left out)".to_owned(),
        Standing::Later(meaning) => format!("not yet (warning, left out): {meaning}"),
        Standing::Needed => "not yet (error: it can't be left out)".to_owned(),
        Standing::Never(reason) => format!("never (error): {reason}"),
    }
}

/// All that is known of a word; of the first word of a family, its members. `None` = unknown.
pub fn help(word: &str) -> Option<String> {
    let entries = entries();
    let mut text = String::new();
    for entry in entries
        .iter()
        .filter(|entry| matches(entry.help.name, word))
    {
        if !text.is_empty() {
            text.push('\n');
        }
        describe(&mut text, entry);
    }
    if FAMILIES.contains(&word) {
        let family = format!("{word} ");
        for entry in entries.iter().filter(|e| e.help.name.starts_with(&family)) {
            let _ = writeln!(text, "{:<34} {}", entry.help.name, one_line(&entry.help));
        }
    }
    (!text.is_empty()).then_some(text)
}

fn describe(text: &mut String, entry: &Entry) {
    let help = &entry.help;
    let _ = writeln!(text, "{}", written(help));
    let _ = writeln!(text, "  in       {}", entry.place);
    let _ = writeln!(text, "  status   {}", standing(help.standing));
    if !help.default.is_empty() {
        let _ = writeln!(text, "  default  {}", help.default);
    }
    if !help.help.is_empty() {
        let _ = writeln!(text, "  {}", help.help);
    }
    if !entry.lacks.is_empty() {
        let _ = writeln!(text, "  not yet  {}", entry.lacks.join(", "));
    }
    if help.origin == Origin::Tidegate {
        let _ = writeln!(text, "  Tidegate's own; HAProxy doesn't have it.");
    }
}

/// The word with its arguments.
fn written(help: &ParameterHelp) -> String {
    format!("{} {}", help.name, help.syntax)
        .trim_end()
        .to_owned()
}

fn one_line(help: &ParameterHelp) -> String {
    match help.standing {
        Standing::Works => help.help.to_owned(),
        other => standing(other),
    }
}

/// The word that may have been meant by one that `help` doesn't know.
pub fn nearest(word: &str) -> Option<&'static str> {
    let names = entries();
    let names = names.iter().map(|entry| entry.help.name);
    closest(word, names.chain(FAMILIES.iter().copied()))
}

/// The places of the language and how many words each has: what there is to ask for.
pub fn topics() -> String {
    let entries = entries();
    let mut text = String::new();
    for place in PLACES {
        let here = entries.iter().filter(|entry| entry.place == *place);
        let working = here.filter(|entry| entry.help.standing == Standing::Works);
        let names: Vec<&str> = working.map(|entry| entry.help.name).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "{place}:\n  {}", names.join(", "));
        }
    }
    text
}

/// Every word that isn't there yet, with its place, one per line; arguments after their keyword.
pub fn missing() -> String {
    let mut text = String::new();
    for entry in entries() {
        for argument in entry.lacks {
            let _ = writeln!(text, "{}: {} {argument}", entry.place, entry.help.name);
        }
        let end = match entry.help.standing {
            Standing::Later(_) => "",
            Standing::Needed => " (error)",
            Standing::Works | Standing::NoEffect(_) | Standing::Never(_) => continue,
        };
        let _ = writeln!(text, "{}: {}{end}", entry.place, entry.help.name);
    }
    text
}

/// The reference page, in Markdown.
pub fn page() -> String {
    let mut text = String::from(
        "# Keywords\n\n\
         Every word of HAProxy's TCP level and Tidegate's own, with what becomes of it. Made from \
         the tables in\n`src/config/keywords/`; `tidegate help KEYWORD` prints the same.\n\n\
         - **works**: as in HAProxy.\n\
         - **no effect**: accepted with a warning, because it can't change anything here.\n\
         - **not yet**: a warning, and the line is left out; an **error** where connections would \
         go elsewhere or carry\n  other bytes without it. `tidegate help --missing` lists them.\n\
         - **never**: an error with its reason.\n",
    );
    let entries = entries();
    for place in PLACES {
        let here: Vec<&Entry> = entries.iter().filter(|e| e.place == *place).collect();
        if here.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n## {}{}\n\n",
            place[..1].to_uppercase(),
            &place[1..]
        );
        text.push_str("| word | default | status |\n|---|---|---|\n");
        for entry in here {
            row(&mut text, entry);
        }
    }
    text
}

fn row(text: &mut String, entry: &Entry) {
    let help = &entry.help;
    let cell = |text: &str| text.replace('|', "\\|");
    let status = match help.standing {
        Standing::Works if entry.lacks.is_empty() => help.help.to_owned(),
        Standing::Works => {
            let lacks: Vec<String> = entry.lacks.iter().map(|word| format!("`{word}`")).collect();
            format!("{} **Not yet**: {}.", help.help, lacks.join(", "))
        }
        Standing::NoEffect(reason) => format!("no effect: {reason}"),
        Standing::Later("") => format!("**not yet**: {}", help.help),
        Standing::Later(meaning) => format!("**not yet**: {} Until then {meaning}.", help.help),
        Standing::Needed => format!("**not yet** (error): {}", help.help),
        Standing::Never(reason) => format!("**never**: {reason}"),
    };
    let ours = match help.origin {
        Origin::HaProxy => "",
        Origin::Tidegate => " (ours)",
    };
    let _ = writeln!(
        text,
        "| `{}`{ours} | {} | {} |",
        cell(&written(help)),
        cell(help.default),
        cell(&status)
    );
}
