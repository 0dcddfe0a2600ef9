//! The fields behind the addresses of a version 2 header: type, length and value each.

/// Application protocol that the client has chosen in TLS.
pub const ALPN: u8 = 0x01;
/// Host name that the client asked for (SNI).
pub const AUTHORITY: u8 = 0x02;
/// CRC32C of the whole header, with this value taken as zero.
pub const CRC32C: u8 = 0x03;
/// Padding.
pub const NOOP: u8 = 0x04;
/// A number of the sender's for the connection.
pub const UNIQUE_ID: u8 = 0x05;
/// What the sender knows of the client's TLS; holds fields of its own.
pub const SSL: u8 = 0x20;
/// Network namespace.
pub const NETNS: u8 = 0x30;

/// Longest value of [`UNIQUE_ID`], which the protocol says.
pub const UNIQUE_ID_MAX: usize = 128;
/// Longest value of [`AUTHORITY`]: of a host name (RFC 1035). HAProxy refuses longer ones too.
pub const AUTHORITY_MAX: usize = 255;
/// Bytes before a value.
pub const HEAD: usize = 3;

/// A field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tlv<'a> {
    /// What it is.
    pub kind: u8,
    /// What it says.
    pub value: &'a [u8],
}

/// The fields of a header one by one; the last item is an error where something is cut off.
#[derive(Clone, Debug)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
}

/// A field goes beyond the end of the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutOff;

/// The fields in `bytes`.
pub fn fields(bytes: &[u8]) -> Tlvs<'_> {
    Tlvs { rest: bytes }
}

/// The value of the first field of a kind; empty where there is none.
pub fn value(bytes: &[u8], kind: u8) -> &[u8] {
    let mut whole = fields(bytes).map_while(Result::ok);
    whole
        .find(|field| field.kind == kind)
        .map_or(&[], |field| field.value)
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<Tlv<'a>, CutOff>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, length, rest) = match *self.rest {
            [] => return None,
            [kind, high, low, ref rest @ ..] => (kind, u16::from_be_bytes([high, low]), rest),
            [..] => {
                self.rest = &[];
                return Some(Err(CutOff));
            }
        };
        let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else {
            self.rest = &[];
            return Some(Err(CutOff));
        };
        self.rest = rest;
        Some(Ok(Tlv { kind, value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_kind() {
        let bytes = [
            NOOP, 0, 0, AUTHORITY, 0, 1, b'a', AUTHORITY, 0, 1, b'b', 5, 9,
        ];
        assert_eq!(value(&bytes, AUTHORITY), b"a");
        assert!(value(&bytes, NOOP).is_empty() && value(&bytes, UNIQUE_ID).is_empty());
        assert!(value(&[], AUTHORITY).is_empty());
    }

    #[test]
    fn fields_come_one_by_one() {
        let bytes = [NOOP, 0, 0, 0xe0, 0, 2, 7, 8, AUTHORITY, 0, 1, b'a'];
        let found: Vec<_> = fields(&bytes).map(Result::unwrap).collect();
        let kinds: Vec<_> = found
            .iter()
            .map(|field| (field.kind, field.value))
            .collect();
        assert_eq!(
            kinds,
            [(NOOP, &b""[..]), (0xe0, &[7, 8]), (AUTHORITY, b"a")]
        );
        for length in 1..bytes.len() {
            let whole = [3, 8].contains(&length);
            let all = fields(&bytes[..length]).all(|field| field.is_ok());
            assert_eq!(all, whole, "{length}");
            // Nothing follows an error.
            let errors = fields(&bytes[..length]).filter(Result::is_err);
            assert!(errors.count() <= 1);
        }
    }
}
