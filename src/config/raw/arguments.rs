//! The second level of quoting: the arguments of `word(a,b)` inside a word.
//!
//! Quotes and backslashes count here too, after the line's own are resolved; `\#`, `\$` and `\xHH`
//! do not. A comma or `)` ends an argument, and blanks belong to it.

/// What is wrong with a list of arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Fault {
    /// There is no `)`.
    Parenthesis,
    /// A quote that begins at this byte has no end.
    Quote(usize),
}

/// Splits what follows a `(`: the arguments and how many bytes they take, the `)` included. There
/// is at least one argument, which may be empty.
pub(in crate::config) fn list(text: &str) -> Result<(Vec<String>, usize), Fault> {
    let mut arguments = Vec::new();
    let mut argument = String::new();
    // Where the quote that is open began, and what closes it.
    let mut quote: Option<(usize, char)> = None;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some((_, mark)), _) if character == mark => quote = None,
            (Some((_, '\'')), _) => argument.push(character),
            (_, '\\') => {
                let next = characters.peek().map(|(_, next)| *next);
                let escaped = next.and_then(escaped);
                if escaped.is_some() {
                    characters.next();
                }
                argument.push(escaped.unwrap_or('\\'));
            }
            (Some(_), _) => argument.push(character),
            (None, '"' | '\'') => quote = Some((at, character)),
            (None, ',') => arguments.push(std::mem::take(&mut argument)),
            (None, ')') => {
                arguments.push(argument);
                return Ok((arguments, at + 1));
            }
            (None, _) => argument.push(character),
        }
    }
    Err(quote.map_or(Fault::Parenthesis, |(at, _)| Fault::Quote(at)))
}

/// What a backslash and this character stand for, if it is one of those that can be escaped.
fn escaped(character: char) -> Option<char> {
    match character {
        't' => Some('\t'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        ' ' | '\\' | '\'' | '"' => Some(character),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments, and what is left behind the `)`.
    fn parse(text: &str) -> (Vec<String>, &str) {
        let (arguments, length) = list(text).unwrap();
        (arguments, &text[length..])
    }

    #[test]
    fn commas_and_the_parenthesis_delimit() {
        assert_eq!(parse("a,b)"), (vec!["a".to_owned(), "b".to_owned()], ""));
        assert_eq!(parse("a)b)").1, "b)");
        for (text, expected) in [
            (")", &[""] as &[&str]),
            (",)", &["", ""]),
            (" a , b )", &[" a ", " b "]),
            ("(a)", &["(a"]),
            ("é,ü)", &["é", "ü"]),
        ] {
            assert_eq!(parse(text).0, expected, "{text}");
        }
    }

    #[test]
    fn quotes_and_escapes_of_the_second_level() {
        for (text, expected) in [
            (r#""a,b")"#, "a,b"),
            (r"'a)b')", "a)b"),
            (r#"a"b c"'d'e)"#, "ab cde"),
            (r#"'a"b')"#, "a\"b"),
            (r#""a'b")"#, "a'b"),
            (r"\t\n\r\ \\\'\x)", "\t\n\r \\'\\x"),
            (r#"\"a)"#, "\"a"),
            (r#""\"")"#, "\""),
            (r"'\n')", r"\n"),
            (r"\#\$\x41)", r"\#\$\x41"),
            (r"a\)", r"a\"),
        ] {
            assert_eq!(parse(text), (vec![expected.to_owned()], ""), "{text}");
        }
        // A backslash doesn't keep a comma in an argument.
        assert_eq!(parse(r"a\,b)").0, [r"a\", "b"]);
    }

    #[test]
    fn what_has_no_end_is_a_fault() {
        assert_eq!(list(""), Err(Fault::Parenthesis));
        assert_eq!(list("a,b"), Err(Fault::Parenthesis));
        assert_eq!(list("a,\"b)"), Err(Fault::Quote(2)));
        assert_eq!(list("'"), Err(Fault::Quote(0)));
    }
}
