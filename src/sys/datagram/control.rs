//! Control messages beside a datagram, cmsg(3): read and written as plain bytes, each access within
//! its bounds.
//!
//! A message is its length (a word, header included), level and type (four bytes each) and its
//! data, padded to whole words.

/// Bytes of a word, to which messages are aligned.
const WORD: usize = size_of::<usize>();
/// Bytes before the data.
const HEADER: usize = WORD + 8;

/// One control message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Its protocol, `cmsg_level`.
    pub level: i32,
    /// Its `cmsg_type`.
    pub kind: i32,
    /// Its data.
    pub data: &'a [u8],
}

impl Message<'_> {
    /// The number it holds: four bytes, or one.
    pub fn number(&self) -> Option<i32> {
        match *self.data {
            [one] => Some(i32::from(one)),
            [a, b, c, d, ..] => Some(i32::from_ne_bytes([a, b, c, d])),
            _ => None,
        }
    }
}

/// The messages that lie in `bytes`, up to the first that isn't whole.
pub fn messages(bytes: &[u8]) -> Messages<'_> {
    Messages { rest: bytes }
}

/// See [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let bytes = std::mem::take(&mut self.rest);
        let (length, rest) = bytes.split_first_chunk::<WORD>()?;
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, _) = rest.split_first_chunk::<4>()?;
        let length = usize::from_ne_bytes(*length);
        // Also where the length is less than a header.
        let data = bytes.get(HEADER..length)?;
        self.rest = bytes.get(length.next_multiple_of(WORD)..).unwrap_or(&[]);
        Some(Message {
            level: i32::from_ne_bytes(*level),
            kind: i32::from_ne_bytes(*kind),
            data,
        })
    }
}

/// Room for what goes beside a datagram that is sent: its segment size (a u16), the address it
/// leaves from (20 bytes for IPv6) and its traffic class (an int), for one family or for both.
const SPACE: usize = (HEADER + WORD) + (HEADER + 24) + 2 * (HEADER + WORD);

/// Control messages that are being put together.
#[derive(Debug)]
#[repr(C, align(8))]
pub struct Control {
    bytes: [u8; SPACE],
    length: usize,
}

impl Control {
    /// None.
    pub fn new() -> Control {
        Control {
            bytes: [0; SPACE],
            length: 0,
        }
    }

    /// Appends one of those there is room for.
    pub fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let length = HEADER + data.len();
        let message = &mut self.bytes[self.length..self.length + length];
        message[..WORD].copy_from_slice(&length.to_ne_bytes());
        message[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        message[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..].copy_from_slice(data);
        self.length += length.next_multiple_of(WORD);
    }

    /// What was put together.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Default for Control {
    fn default() -> Self {
        Control::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut control = Control::new();
        control.push(1, 2, &[3]);
        control.push(-4, 5, &[6; 20]);
        control.push(7, 8, &9i32.to_ne_bytes());
        let read: Vec<_> = messages(control.bytes()).collect();
        let shape: Vec<_> = read
            .iter()
            .map(|m| (m.level, m.kind, m.data.len()))
            .collect();
        assert_eq!(shape, [(1, 2, 1), (-4, 5, 20), (7, 8, 4)]);
        assert_eq!((read[0].number(), read[2].number()), (Some(3), Some(9)));
    }

    #[test]
    fn it_reads_up_to_the_first_that_is_not_whole() {
        let mut control = Control::new();
        control.push(1, 2, &[3; 4]);
        control.push(1, 2, &[4; 4]);
        let bytes = control.bytes();
        for length in 0..bytes.len() {
            let whole = [HEADER + 4, 2 * (HEADER + WORD) - WORD + 4];
            let count = whole.iter().filter(|end| length >= **end).count();
            assert_eq!(messages(&bytes[..length]).count(), count, "{length}");
        }
        for length in [0, HEADER - 1, usize::MAX, usize::MAX - WORD] {
            let mut bytes = [0; 64];
            bytes[..WORD].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bytes).count(), 0, "{length}");
        }
    }
}
