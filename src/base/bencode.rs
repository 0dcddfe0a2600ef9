//! Bencode, as far as the messages of BitTorrent's DHT need it: strings, dictionaries in any order,
//! and the extent of everything else.
//!
//! Whatever is read comes from the network. A reader never looks behind its bytes, goes no deeper
//! than [`DEPTH_MAX`], and takes a time in proportion to the length. Canonical form is not asked
//! for where it doesn't matter: keys may stand in any order, and more than once.

/// Deepest lists and dictionaries inside a value that is passed over. Stored values may be nested
/// at will, but nobody has a reason to.
pub const DEPTH_MAX: usize = 16;

/// Most digits of a string's length: those of the longest datagram.
const LENGTH_DIGITS_MAX: usize = 5;

/// Most digits of an integer: those of 64 bits.
const INTEGER_DIGITS_MAX: usize = 20;

/// What comes next in a dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    /// A name; its value follows.
    Named(&'a [u8]),
    /// Its end.
    End,
}

/// The part of a message that has not been read yet. `None` of any of its steps: it is malformed,
/// or of another kind, and there is no going on.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of a message.
    pub fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    /// Whether all has been read.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads the beginning of a dictionary; its entries follow.
    pub fn begin_dictionary(&mut self) -> Option<()> {
        self.rest = self.rest.strip_prefix(b"d")?;
        Some(())
    }

    /// Reads the beginning of a list; its values follow.
    pub fn begin_list(&mut self) -> Option<()> {
        self.rest = self.rest.strip_prefix(b"l")?;
        Some(())
    }

    /// Reads the next name of a dictionary, or its end.
    pub fn entry(&mut self) -> Option<Entry<'a>> {
        if let Some(rest) = self.rest.strip_prefix(b"e") {
            self.rest = rest;
            return Some(Entry::End);
        }
        self.string().map(Entry::Named)
    }

    /// Reads a string.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let (digits, rest) = digits(self.rest, LENGTH_DIGITS_MAX)?;
        if digits.len() > 1 && digits[0] == b'0' {
            return None;
        }
        let digit = |length, digit: &u8| length * 10 + usize::from(digit - b'0');
        let length = digits.iter().fold(0, digit);
        let (string, rest) = rest.strip_prefix(b":")?.split_at_checked(length)?;
        self.rest = rest;
        Some(string)
    }

    /// Reads an integer, as the text that it is.
    pub fn integer(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.strip_prefix(b"i")?;
        let (_, rest) = digits(text.strip_prefix(b"-").unwrap_or(text), INTEGER_DIGITS_MAX)?;
        self.rest = rest.strip_prefix(b"e")?;
        Some(&text[..text.len() - rest.len()])
    }

    /// Reads a value of any kind. Inside of it dictionaries are read as lists.
    pub fn pass_over(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.rest.first()? {
                b'i' => drop(self.integer()?),
                b'd' | b'l' if depth == DEPTH_MAX => return None,
                b'd' | b'l' => {
                    depth += 1;
                    self.rest = &self.rest[1..];
                }
                b'e' => {
                    depth = depth.checked_sub(1)?;
                    self.rest = &self.rest[1..];
                }
                _ => drop(self.string()?),
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// The digits at the front, and what follows them.
fn digits(text: &[u8], most: usize) -> Option<(&[u8], &[u8])> {
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    let count = text.iter().take(most + 1).take_while(is_digit).count();
    (1..=most).contains(&count).then(|| text.split_at(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bytes: &[u8]) -> Option<usize> {
        let mut reader = Reader::new(bytes);
        reader.pass_over()?;
        Some(bytes.len() - reader.rest.len())
    }

    #[test]
    fn values_have_their_extent() {
        for (bytes, length) in [
            (&b"3:abcd"[..], 5),
            (b"0:x", 2),
            (b"i-42ei7e", 5),
            (b"le", 2),
            (b"d1:ali1e0:eee", 12),
        ] {
            assert_eq!(passed(bytes), Some(length), "{}", bytes.escape_ascii());
        }
        for bytes in [
            &b""[..],
            b"e",
            b"x",
            b"3:ab",
            b"03:abc",
            b"ie",
            b"i-e",
            b"i1",
            b"l",
            b"d1:a",
            b"99999:a",
            b"100000:a",
            b"i123456789012345678901e",
        ] {
            assert_eq!(passed(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn nothing_is_too_deep_or_too_long_to_be_refused() {
        let nested = |depth| [b"l".repeat(depth), b"e".repeat(depth)].concat();
        assert_eq!(passed(&nested(DEPTH_MAX)), Some(2 * DEPTH_MAX));
        assert_eq!(passed(&nested(DEPTH_MAX + 1)), None);
        assert_eq!(passed(&nested(30_000)), None);
        let longest = [&b"65507:"[..], &[b'x'; 65_507]].concat();
        assert_eq!(passed(&longest), Some(longest.len()));
    }

    #[test]
    fn an_integer_is_its_text() {
        let mut reader = Reader::new(b"i201e1:x");
        assert_eq!(reader.integer(), Some(&b"201"[..]));
        assert_eq!(reader.string(), Some(&b"x"[..]));
        assert!(reader.is_at_end());
    }
}
