//! Configurations in TOML: the second way to write `Raw`.
//!
//! A file becomes the statements that the same configuration has in HAProxy's language, in the
//! order of the file, each word with its place; everything after that is shared, so both formats
//! have the same keywords, checks and messages. `docs/toml.md` says how it is written. The tree
//! with its places comes from the `toml` crate. Nothing here knows a keyword, apart from those
//! whose arguments can be written as a table.

mod source;
mod tree;

use std::sync::Arc;

use ::toml::de::{DeTable, DeValue};

use super::fault::FaultKind;
use super::sections::{self, SectionKind};
use super::token::{self, WORDS_MAX, Word};
use super::variables::Variables;
use crate::config::diagnostics::{Place, Report, Severity};
use crate::config::raw::{EXPANSION_BYTES_MAX, Statement};
use source::Source;
pub(in crate::config) use tree::NAMELESS;
use tree::{Key, Table, Value, items, positional, sections_of};

/// Keywords that consist of parts with dots between them, so that a dotted key is one word.
const DOTTED: &[&str] = &["harden", "tune"];

/// Most parts of such a keyword.
const DOTTED_PARTS_MAX: usize = 6;

/// Reads a file's bytes into statements. Those about variables are carried out, and left in.
pub(in crate::config) fn read(
    file: &Arc<str>,
    bytes: &[u8],
    variables: &mut Variables<'_>,
    report: &mut Report,
) -> Vec<Statement> {
    let mut reader = Reader {
        source: Source::new(file, bytes),
        section: String::new(),
        in_global: false,
        words_bytes_left: bytes.len() + EXPANSION_BYTES_MAX,
        variables,
        report,
        statements: Vec::new(),
    };
    match str::from_utf8(bytes) {
        Ok(text) => {
            reader.source.text = text;
            reader.file();
        }
        Err(error) => reader.alert(error.valid_up_to(), "the file is not valid UTF-8."),
    }
    let statements = reader.statements.into_iter();
    statements.map(|(_, statement)| statement).collect()
}

struct Reader<'a, 'v> {
    source: Source<'a>,
    /// Name of the section at hand.
    section: String,
    in_global: bool,
    /// How many bytes the words to come may have.
    words_bytes_left: usize,
    variables: &'a mut Variables<'v>,
    report: &'a mut Report,
    /// With their offsets, which give the order.
    statements: Vec<(usize, Statement)>,
}

impl Reader<'_, '_> {
    fn file(&mut self) {
        let (tree, errors) = DeTable::parse_recoverable(self.source.text);
        for error in &errors {
            if self.report.is_full() {
                break;
            }
            let offset = error.span().map_or(0, |span| span.start);
            self.alert(offset, &format!("{}.", error.message()));
        }
        // What a broken file still gives would only be the source of more messages.
        if errors.is_empty() {
            self.tree(tree.get_ref());
        }
    }

    fn tree(&mut self, tree: &DeTable<'_>) {
        let mut sections = Vec::new();
        for (kind, value) in tree {
            let name = kind.get_ref();
            let is_section = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
            if !is_section && sections::standing(name).is_none() {
                let place = self.source.place(kind.span().start);
                self.tight(place, format!("unknown keyword '{name}' out of section."));
            } else if let Err(text) = sections_of(kind, value, &mut sections) {
                self.alert(kind.span().start, &text);
            }
        }
        sections.sort_by_key(|section| section.offset);
        for section in sections {
            if self.report.is_full() || self.words_bytes_left == 0 {
                return;
            }
            self.section(&section);
        }
    }

    fn section(&mut self, section: &Table<'_>) {
        let begin = self.statements.len();
        let mut header = vec![self.key_word(section.kind)];
        let mut named = section.name.map(|name| self.key_word(name));
        let mut from = None;
        for (key, value) in section.table {
            match key.get_ref().as_ref() {
                "name" if section.name.is_none() => named = self.whole_word(key, value),
                "from" => from = self.whole_word(key, value),
                _ => {}
            }
        }
        let (_, called) = named.as_ref().unwrap_or(&header[0]);
        self.section.clone_from(&called.text);
        self.in_global = section.kind.get_ref() == SectionKind::Global.name();
        header.extend(named);
        if let Some(origin) = from {
            let word = Word {
                text: "from".to_owned(),
                ..origin.1.clone()
            };
            header.extend([(origin.0, word), origin]);
        }
        self.push(section.offset, true, header);
        // In the order of the file, because a statement may set a variable for the next.
        let mut entries: Vec<_> = section.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            match key.get_ref().as_ref() {
                "name" if section.name.is_none() => {}
                "from" => {}
                "lines" => self.lines(value),
                _ => self.entry(key, value),
            }
        }
        // The header is first, whatever its offset (a table may begin below its first key).
        self.statements[begin..].sort_by_key(|(offset, statement)| (!statement.header, *offset));
    }

    /// `lines`: whole statements.
    fn lines(&mut self, value: &Value<'_>) {
        for item in items(value) {
            let DeValue::String(_) = item.get_ref() else {
                self.alert(item.span().start, "'lines' expects strings.");
                continue;
            };
            let words = self.split(item, 0).unwrap_or_default();
            if let Some((at, first)) = words.first() {
                let (at, word) = (*at, first.text.clone());
                if self.may_begin(at, &word) {
                    self.push(item.span().start, false, words);
                }
            }
        }
    }

    /// A keyword with all that belongs to it.
    fn entry(&mut self, key: &Key<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        if !self.may_begin(key.span().start, name) {
            return;
        }
        let word = self.key_word(key);
        match value.get_ref() {
            DeValue::Table(table) if DOTTED.contains(&name) => self.dotted(&word, table, 2),
            DeValue::Table(table) if positional(name).is_none() => {
                for (second, value) in table {
                    let words = [word.clone(), self.key_word(second)];
                    self.values(&words, value);
                }
            }
            _ => self.values(&[word], value),
        }
    }

    /// `tune.rcvbuf.client`: one keyword, however many tables the dots make.
    fn dotted(&mut self, before: &(usize, Word), table: &DeTable<'_>, parts: usize) {
        for (key, value) in table {
            let mut word = before.clone();
            word.1.text = format!("{}.{}", before.1.text, key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if parts < DOTTED_PARTS_MAX => {
                    self.dotted(&word, table, parts + 1);
                }
                _ => self.values(&[word], value),
            }
        }
    }

    /// Whether a statement may begin with this word.
    fn may_begin(&mut self, offset: usize, word: &str) -> bool {
        let fault = if word.starts_with('.') {
            format!("'{word}' is not possible in TOML.")
        } else if sections::standing(word).is_some() {
            format!("'{word}' begins a section and can't stand inside one.")
        } else {
            return true;
        };
        self.alert(offset, &fault);
        false
    }

    /// One statement, or one for each item of an array.
    fn values(&mut self, keyword: &[(usize, Word)], value: &Value<'_>) {
        for item in items(value) {
            self.value(keyword, item);
        }
    }

    fn value(&mut self, keyword: &[(usize, Word)], value: &Value<'_>) {
        let offset = value.span().start;
        let name = keyword[0].1.text.as_str();
        let mut words = keyword.to_vec();
        match value.get_ref() {
            DeValue::Table(table) => match positional(name).filter(|_| keyword.len() == 1) {
                Some(positional) => match self.parameters(offset, name, positional, table) {
                    Some(parameters) => words.extend(parameters),
                    None => return,
                },
                None => {
                    return self.alert(offset, &format!("'{name}' : a table is too deep here."));
                }
            },
            DeValue::Boolean(true) => {}
            DeValue::Boolean(false) => words.insert(0, self.word(offset, "no")),
            _ => match self.arguments(name, value) {
                Some(arguments) => words.extend(arguments),
                None => return,
            },
        }
        self.push(offset, false, words);
    }

    /// The words of a table of parameters: those without a name first.
    fn parameters(
        &mut self,
        offset: usize,
        keyword: &str,
        positional: &[&str],
        table: &DeTable<'_>,
    ) -> Option<Vec<(usize, Word)>> {
        let mut words = Vec::new();
        for name in positional {
            let Some(value) = table.get(*name) else {
                self.alert(
                    offset,
                    &format!("'{keyword}' : the key '{name}' is missing."),
                );
                return None;
            };
            words.extend(self.arguments(name, value)?);
        }
        let mut others: Vec<_> = table.iter().collect();
        others.retain(|(key, _)| !positional.contains(&key.get_ref().as_ref()));
        others.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in others {
            let mut word = self.key_word(key);
            match value.get_ref() {
                DeValue::Boolean(true) => words.push(word),
                DeValue::Boolean(false) => {
                    word.1.text.insert_str(0, "no-");
                    words.push(word);
                }
                _ => {
                    words.push(word);
                    words.extend(self.arguments(key.get_ref(), value)?);
                }
            }
        }
        Some(words)
    }

    /// The words of a string or a number.
    fn arguments(&mut self, name: &str, value: &Value<'_>) -> Option<Vec<(usize, Word)>> {
        let offset = value.span().start;
        match value.get_ref() {
            DeValue::String(_) => return self.split(value, 1),
            DeValue::Integer(number) => {
                if let Ok(number) = i64::from_str_radix(number.as_str(), number.radix()) {
                    return Some(vec![self.word(offset, &number.to_string())]);
                }
                self.alert(offset, &format!("'{name}' : the number is too large."));
            }
            other => {
                let kind = other.type_str();
                let text = format!("'{name}' : a value of type {kind} has no meaning here.");
                self.alert(offset, &text);
            }
        }
        None
    }

    /// A string as the one word that it is, for names.
    fn whole_word(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<(usize, Word)> {
        let offset = value.span().start;
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() && !text.contains('\0') => {
                Some(self.word(offset, text))
            }
            _ => {
                let text = format!("'{}' expects a string that is not empty.", key.get_ref());
                self.alert(offset, &text);
                None
            }
        }
    }

    /// The words of a string, by the rules of a line on which `before` words stand already; `None`
    /// after a fault.
    fn split(&mut self, value: &Value<'_>, before: usize) -> Option<Vec<(usize, Word)>> {
        let span = value.span();
        let DeValue::String(text) = value.get_ref() else {
            return None;
        };
        let place = self.source.place(span.start);
        if let Some(position) = text.find('\0') {
            let text = format!("Stray NUL character at position {}.", position + 1);
            self.tight(place, text);
            return None;
        }
        let lookup = |name: &str| match name {
            ".FILE" => Some(self.source.file.to_string()),
            ".LINE" => Some(place.line.to_string()),
            ".SECTION" => Some(self.section.clone()),
            _ => self.variables.get(name),
        };
        match token::split(text.as_bytes(), &lookup) {
            Ok(words) => {
                let bytes = words.iter().map(|word| word.text.len()).sum();
                let left = self.words_bytes_left.saturating_sub(bytes);
                if left == 0 && self.words_bytes_left > 0 {
                    let more = EXPANSION_BYTES_MAX;
                    let text = format!("variables make the file longer by {more} bytes.");
                    self.alert(span.start, &text);
                }
                self.words_bytes_left = left;
                if left == 0 {
                    return None;
                }
                let begin = self.source.content(&span, text);
                let offset = |word: &Word| begin.map_or(span.start, |at| at + word.column as usize);
                let words = words.into_iter().map(|word| (offset(&word), word));
                Some(words.collect())
            }
            Err(mut fault) => {
                if let FaultKind::EmptyWord(number) = &mut fault.kind {
                    *number += before;
                }
                self.tight(place, fault.kind.message(fault.column, text.as_bytes()));
                None
            }
        }
    }

    /// Adds a statement; its words get their places in it.
    fn push(&mut self, offset: usize, header: bool, words: Vec<(usize, Word)>) {
        let place = self.source.place(offset);
        if words.len() > WORDS_MAX {
            let (at, word) = &words[WORDS_MAX - 1];
            let fault = FaultKind::TooManyWords(word.text.chars().take(40).collect());
            let column = self.source.column((*at).max(offset)) as usize;
            return self.tight(place, fault.message(column, b""));
        }
        if words.iter().any(|(_, word)| word.text.is_empty()) {
            return self.alert(offset, "a key is empty.");
        }
        let located = words.into_iter().map(|(at, word)| {
            // A keyword may stand above the first of its values, which is where a statement is.
            let at = at.max(offset);
            let lines_below = self.source.place(at).line.saturating_sub(place.line);
            let column = self.source.column(at);
            Word {
                column,
                lines_below,
                ..word
            }
        });
        let words: Vec<Word> = located.collect();
        if self.in_global && !header {
            // What is wrong with it is said by whoever takes the statements.
            let _ = self.variables.statement(&words);
        }
        self.statements.push((
            offset,
            Statement {
                place,
                header,
                words,
            },
        ));
    }

    fn key_word(&self, key: &Key<'_>) -> (usize, Word) {
        self.word(key.span().start, key.get_ref())
    }

    fn word(&self, offset: usize, text: &str) -> (usize, Word) {
        let (text, column, lines_below) = (text.to_owned(), 0, 0);
        (
            offset,
            Word {
                text,
                column,
                lines_below,
            },
        )
    }

    fn alert(&mut self, offset: usize, text: &str) {
        let place = self.source.place(offset);
        let (_, mut word) = self.word(offset, "");
        word.column = self.source.column(offset);
        self.report.alert(&place, Some(&word), text);
    }

    fn tight(&mut self, place: Place, text: String) {
        self.report.tight(Severity::Alert, &place, text);
    }
}
