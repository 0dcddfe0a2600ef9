//! `tidegate help`: the keyword table, asked.

use super::commands::Help;
use super::print;
use crate::config::keywords::reference;

/// Prints what was asked for; an unknown word is an error.
pub(super) fn run(help: &Help) -> u8 {
    if help.missing {
        return print(&reference::missing());
    }
    if help.words.is_empty() {
        return print(&reference::topics());
    }
    // Keywords of two words are one: `help timeout client`.
    let word = help.words.join(" ");
    if let Some(text) = reference::help(&word) {
        return print(&text);
    }
    let near = reference::nearest(&word);
    let near = near.map_or_else(String::new, |near| {
        format!("; did you mean '{near}' maybe ?")
    });
    super::complain(&format!("unknown keyword '{word}'{near}"));
    1
}
