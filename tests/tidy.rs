//! Guards the shape of the source tree: layers, where `unsafe` may stand, what other layers see of
//! a shard, words that mark unfinished work, line width, module heads, reasons of dependencies.
//!
//! The layer table is read from the head of `src/lib.rs`, so that it is written down once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Widest line in characters, as rustfmt has it for code; comments and configs obey it too.
const WIDTH_MAX: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text file of the repository.
struct Source {
    /// Path from the root.
    name: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .map(|(index, line)| (index + 1, without_comment(line)))
            .filter(|(_, line)| !line.trim().is_empty())
    }

    /// The layer that a file under `src/` belongs to: its folder, or its own name.
    fn layer(&self) -> &str {
        let path = self.name.strip_prefix("src/").expect("a file under src");
        path.split('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".rs")
    }
}

/// The line up to a `//` that is not inside a string.
fn without_comment(line: &str) -> &str {
    let (mut quoted, mut before) = (false, ' ');
    for (index, letter) in line.char_indices() {
        match letter {
            '"' if before != '\\' && before != '\'' => quoted = !quoted,
            '/' if before == '/' && !quoted => return &line[..index - 1],
            _ => {}
        }
        before = letter;
    }
    line
}

/// Files under `folder` whose names end with one of `endings`.
fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("directory entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if endings
                .iter()
                .any(|ending| path.to_string_lossy().ends_with(ending))
            {
                found.push(source(&path));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn source(path: &PathBuf) -> Source {
    let name = path
        .strip_prefix(root())
        .expect("below the root")
        .to_string_lossy()
        .into_owned();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    Source { name, text }
}

fn rust_files() -> Vec<Source> {
    ["src", "tests", "bench"]
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .collect()
}

fn fail_if_any(what: &str, places: &[String]) {
    assert!(places.is_empty(), "{what}:\n{}", places.join("\n"));
}

/// Whether `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// What each layer may use, from the table at the head of `src/lib.rs`.
fn layer_table() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let mut table = BTreeMap::new();
    let mut above = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let layer = cells[0].trim_end_matches('`').to_owned();
        let allowed: BTreeSet<String> = if cells[1].starts_with("all above") {
            above.clone()
        } else {
            // The backticked words are every second piece.
            cells[1]
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        fail_if_any(
            "a layer that is not above",
            &allowed
                .difference(&above)
                .map(|name| format!("{layer}: {name}"))
                .collect::<Vec<_>>(),
        );
        above.insert(layer.clone());
        table.insert(layer, allowed);
    }
    table
}

/// The paths behind each `crate::` in a text, `use crate::{a::B, c}` taken apart.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            paths.extend(split_group(group));
        } else {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            paths.push(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    paths
}

/// The members of a `{...}` group, outer commas only.
fn split_group(group: &str) -> Vec<String> {
    let (mut depth, mut members) = (0, vec![String::new()]);
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(String::new());
                continue;
            }
            _ => {}
        }
        if !letter.is_whitespace() {
            members.last_mut().expect("never empty").push(letter);
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

/// All code of a file on one string, so that a `use` over several lines is seen whole.
fn joined(source: &Source) -> String {
    source
        .code()
        .map(|(_, line)| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn layers_use_only_those_above() {
    let table = layer_table();
    assert!(
        table.len() >= 10,
        "the table in src/lib.rs was not read: {table:?}"
    );
    let mut places = Vec::new();
    for source in files("src", &[".rs"]) {
        let layer = source.layer().to_owned();
        if layer == "lib" || layer == "main" {
            continue;
        }
        let Some(allowed) = table.get(&layer) else {
            places.push(format!(
                "{}: layer {layer} is not in the table",
                source.name
            ));
            continue;
        };
        for path in crate_paths(&joined(&source)) {
            let used = path.split("::").next().unwrap_or("").to_owned();
            if used != layer && !allowed.contains(&used) {
                places.push(format!("{}: crate::{path}", source.name));
            }
        }
        // A path upwards out of the layer would escape the check above.
        let depth =
            source.name.matches('/').count() - usize::from(source.name.ends_with("/mod.rs"));
        let upwards = "super::".repeat(depth.max(1));
        if joined(&source).contains(&upwards) && !joined(&source).contains("mod tests") {
            places.push(format!("{}: {upwards} leaves the layer", source.name));
        }
    }
    fail_if_any("not allowed by the layer table of src/lib.rs", &places);
}

#[test]
fn other_layers_see_of_a_shard_only_what_it_exports() {
    let module = source(&root().join("src/shard/mod.rs"));
    let code = joined(&module);
    assert!(
        !code.contains("pub mod "),
        "src/shard/mod.rs opens a module"
    );
    let exported = |name: &str| {
        let ways = [" fn ", " struct ", " enum ", " const ", " trait ", " type "];
        let declared = ways
            .iter()
            .any(|way| has_word(&code, &format!("pub{way}{name}")));
        let uses: Vec<&str> = code.split("pub use ").skip(1).collect();
        declared
            || uses
                .iter()
                .any(|one| has_word(one.split(';').next().unwrap_or(""), name))
    };
    let mut places = Vec::new();
    for source in files("src", &[".rs"]) {
        if source.layer() == "shard" {
            continue;
        }
        for path in crate_paths(&joined(&source)) {
            let Some(inside) = path.strip_prefix("shard::") else {
                continue;
            };
            let members = match inside.strip_prefix('{') {
                Some(group) => split_group(group),
                None => vec![inside.to_owned()],
            };
            for member in members {
                let name = member.split("::").next().unwrap_or("");
                if name != "self" && !exported(name) {
                    places.push(format!("{}: crate::shard::{member}", source.name));
                }
            }
        }
    }
    fail_if_any("not exported by src/shard/mod.rs", &places);
}

#[test]
fn unsafe_stands_only_in_sys_and_ring() {
    let mut places = Vec::new();
    for source in rust_files() {
        // The tools under bench/ and the support of tests have a `sys.rs` of their own for it.
        let tool = ["bench/", "tests/"]
            .iter()
            .any(|p| source.name.starts_with(p))
            && source.name.ends_with("/sys.rs");
        if tool
            || ["src/sys/", "src/ring/"]
                .iter()
                .any(|place| source.name.starts_with(place))
        {
            continue;
        }
        for (number, line) in source.code() {
            // Not the word in a text of a message.
            let bare: String = line.split('"').step_by(2).collect();
            if has_word(&bare, "unsafe") {
                places.push(format!("{}:{number}", source.name));
            }
        }
    }
    fail_if_any("unsafe outside of src/sys and src/ring", &places);
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here so that this file doesn't find itself.
    let marks = ["TO", "FIX", "XX"].map(|half| match half {
        "TO" => format!("{half}DO"),
        "FIX" => format!("{half}ME"),
        _ => format!("{half}X"),
    });
    let calls = ["dbg", "todo", "unimplemented"].map(|name| format!("{name}!("));
    let mut places = Vec::new();
    for source in rust_files() {
        for (index, line) in source.text.lines().enumerate() {
            let marked = marks.iter().any(|mark| has_word(line, mark));
            if marked || calls.iter().any(|call| line.contains(call)) {
                places.push(format!("{}:{}", source.name, index + 1));
            }
        }
    }
    fail_if_any("unfinished", &places);
}

#[test]
fn an_ignored_test_says_why() {
    let mark = format!("#[{}]", "ignore");
    let mut places = Vec::new();
    for source in rust_files() {
        for (number, line) in source.code().filter(|(_, line)| line.contains(&mark)) {
            places.push(format!("{}:{number}: {line}", source.name));
        }
    }
    fail_if_any("ignored without a reason", &places);
}

#[test]
fn lines_are_at_most_100_wide() {
    let mut places = Vec::new();
    for source in rust_files()
        .into_iter()
        .chain(files("conf", &[".cfg", ".toml"]))
    {
        for (index, line) in source.text.lines().enumerate() {
            let width = line.chars().count();
            // An address can't be broken, nor a row; rustfmt leaves texts as they are.
            let row = line.trim_start_matches(['/', '!', ' ']).starts_with('|');
            let whole = row
                || line.ends_with('\\')
                || line.contains("://")
                || without_comment(line).contains('"');
            if width > WIDTH_MAX && !whole {
                places.push(format!("{}:{}: {width}", source.name, index + 1));
            }
        }
    }
    fail_if_any("too wide", &places);
}

#[test]
fn modules_begin_with_what_they_are() {
    let mut places = Vec::new();
    for source in rust_files() {
        if !source.text.starts_with("//! ") {
            places.push(source.name);
        }
    }
    fail_if_any("no module doc at the head", &places);
}

#[test]
fn comments_name_items_not_lines() {
    let mut places = Vec::new();
    for source in rust_files() {
        for (index, line) in source.text.lines().enumerate() {
            let Some(at) = line.find("//") else { continue };
            let after = line[at..].split(".rs:").nth(1);
            if after.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
                places.push(format!("{}:{}", source.name, index + 1));
            }
        }
    }
    fail_if_any("a reference to a line, which moves", &places);
}

#[test]
fn configs_are_shown_as_written() {
    let mut places = Vec::new();
    for source in files("conf", &[".cfg"]) {
        for (index, line) in source.text.lines().enumerate() {
            if line.contains('\t') || line.ends_with(' ') {
                places.push(format!("{}:{}", source.name, index + 1));
            }
        }
        if !source.text.starts_with("# ") || !source.text.ends_with('\n') {
            places.push(format!("{}: says at its head what it is for", source.name));
        }
    }
    fail_if_any("tabs, spaces at an end, or no head", &places);
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let (mut inside, mut places) = (false, Vec::new());
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if inside && line.contains('=') {
            let reason = line.rsplit_once("# ").map_or("", |(_, reason)| reason);
            if reason.split_whitespace().count() < 2 {
                places.push(format!("Cargo.toml:{}: {line}", index + 1));
            }
        }
    }
    fail_if_any("no reason", &places);
}
