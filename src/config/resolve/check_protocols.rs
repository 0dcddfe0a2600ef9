//! The checks of protocols as scripts: what is said to a server, from each protocol's
//! specification. What its answers mean is read in `health`.
//!
//! A check ends the way that leaves least in a server's log: where the protocol has a word for the
//! end, that is said and the server closes; else by a reset, as a check that connects.

use super::check::implied;
use crate::config::draft_check::{MysqlAge, MysqlUser};
use crate::config::plan::{
    Action, Answer, CheckStatus, ConnectStep, Ending, Expect, Manner, Script,
};

fn script(actions: Vec<Action>, ending: Ending) -> Script {
    let connect = Action::Connect(ConnectStep::default());
    let actions = std::iter::once(connect).chain(actions);
    Script {
        manner: Manner::Protocol,
        steps: actions.map(implied).collect(),
        ending,
    }
}

fn send(bytes: &[u8]) -> Action {
    Action::Send(bytes.to_vec())
}

fn expect(answer: Answer) -> Action {
    Action::Expect(Expect::of(answer))
}

/// `PING` as an array of one bulk string, which every version of RESP has.
pub(super) fn redis() -> Script {
    let pong = Expect {
        error: Some(CheckStatus::L7Status),
        ..Expect::of(Answer::Redis)
    };
    let steps = vec![send(b"*1\r\n$4\r\nPING\r\n"), Action::Expect(pong)];
    script(steps, Ending::Reset)
}

/// RFC 5321: the greeting, a hello, `QUIT`. After its answer the server closes.
pub(super) fn smtp(hello: &str) -> Script {
    // Who has greeted speaks SMTP, whatever comes then.
    let reply = Expect {
        error: Some(CheckStatus::L7Status),
        ..Expect::of(Answer::Smtp)
    };
    let steps = vec![
        expect(Answer::Smtp),
        send(format!("{hello}\r\n").as_bytes()),
        Action::Expect(reply.clone()),
        send(b"QUIT\r\n"),
        Action::Expect(reply),
    ];
    script(steps, Ending::Goodbye(Vec::new()))
}

/// The server's greeting, and a login without a password where there is a user. Who leaves after
/// the greeting counts as a failed login with the server, in whatever way.
pub(super) fn mysql(user: Option<&MysqlUser>) -> Script {
    /// A packet of its own sequence: `COM_QUIT`.
    const QUIT: [u8; 5] = [1, 0, 0, 0, 1];
    let mut steps = vec![expect(Answer::MysqlGreeting)];
    let Some(user) = user else {
        return script(steps, Ending::Close);
    };
    steps.push(Action::Send(mysql_login(user)));
    steps.push(expect(Answer::MysqlLogin));
    script(steps, Ending::Goodbye(QUIT.to_vec()))
}

/// The packet that answers the greeting, in the form of the user's age.
fn mysql_login(user: &MysqlUser) -> Vec<u8> {
    const LONG_PASSWORD: u32 = 1;
    const PROTOCOL_41: u32 = 1 << 9;
    const SECURE_CONNECTION: u32 = 1 << 15;
    const PLUGIN_AUTH: u32 = 1 << 19;
    const PACKET_BYTES_MAX: u32 = 1 << 24;
    /// utf8_general_ci, which servers of all ages have.
    const CHARACTER_SET: u8 = 33;
    let mut payload = Vec::new();
    if user.age == MysqlAge::Pre41 {
        // Two bytes of flags and three of the longest packet; an empty password takes none.
        payload.extend_from_slice(&LONG_PASSWORD.to_le_bytes()[..2]);
        payload.extend_from_slice(&(PACKET_BYTES_MAX - 1).to_le_bytes()[..3]);
        payload.extend_from_slice(user.name.as_bytes());
        payload.push(0);
    } else {
        let named = user.age == MysqlAge::Post80;
        let plugin = if named { PLUGIN_AUTH } else { 0 };
        let flags = LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | plugin;
        payload.extend_from_slice(&flags.to_le_bytes());
        payload.extend_from_slice(&PACKET_BYTES_MAX.to_le_bytes());
        payload.push(CHARACTER_SET);
        payload.extend_from_slice(&[0; 23]);
        payload.extend_from_slice(user.name.as_bytes());
        // The end of the name, and the length of an empty password.
        payload.extend_from_slice(&[0, 0]);
        if named {
            payload.extend_from_slice(b"caching_sha2_password\0");
        }
    }
    // A name is bounded, so the length fits into its first two bytes. It is packet 1 after the
    // server's 0.
    let [low, middle, ..] = payload.len().to_le_bytes();
    [&[low, middle, 0, 1], payload.as_slice()].concat()
}

/// A start-up message of version 3.0 for the database of the user's name.
pub(super) fn pgsql(user: &str) -> Script {
    const VERSION: u32 = 3 << 16;
    /// `Terminate`: a letter and a length that counts itself.
    const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
    let mut body = VERSION.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0");
    body.extend_from_slice(user.as_bytes());
    body.extend_from_slice(b"\0\0");
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let startup = [length.to_be_bytes().as_slice(), &body].concat();
    let steps = vec![Action::Send(startup), expect(Answer::Pgsql)];
    script(steps, Ending::Goodbye(TERMINATE.to_vec()))
}

/// An anonymous bind of version 3, RFC 4511 section 4.2, and an unbind.
pub(super) fn ldap() -> Script {
    /// A sequence of message id 1 and a bind request: version 3, no name, no password.
    const BIND: [u8; 14] = [0x30, 12, 0x02, 1, 1, 0x60, 7, 0x02, 1, 3, 0x04, 0, 0x80, 0];
    /// A sequence of message id 2 and an unbind request.
    const UNBIND: [u8; 7] = [0x30, 5, 0x02, 1, 2, 0x42, 0];
    let steps = vec![send(&BIND), expect(Answer::Ldap)];
    script(steps, Ending::Goodbye(UNBIND.to_vec()))
}

/// A hello of TLS. It offers 1.3 without a share of a key, which a server answers by asking for
/// one, and that costs it no signature; and 1.2 to 1.0.
pub(super) fn tls() -> Script {
    let answer = Expect {
        ok: CheckStatus::L6Ok,
        error: Some(CheckStatus::L6Response),
        timeout: CheckStatus::L6Timeout,
        ..Expect::of(Answer::Tls)
    };
    let steps = vec![Action::Send(client_hello()), Action::Expect(answer)];
    script(steps, Ending::Reset)
}

/// RFC 8446 section 4.1.2, in a record of its own.
fn client_hello() -> Vec<u8> {
    /// No secret: nothing follows the hello.
    const RANDOM: &[u8; 32] = b"tidegate checks if TLS is spoken";
    // TLS 1.3, then what servers of 1.2 and before have, with and without forward secrecy.
    let ciphers: [u16; 13] = [
        0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
        0x009c, 0x002f,
    ];
    // RSA and ECDSA, from SHA-256 on, and SHA-1 for old servers.
    let signatures: [u16; 9] = [
        0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0807, 0x0201,
    ];
    let extensions = [
        // supported_groups: x25519, secp256r1, secp384r1.
        extension(10, &vector(&words(&[0x001d, 0x0017, 0x0018]))),
        // ec_point_formats: uncompressed.
        extension(11, &[1, 0]),
        extension(13, &vector(&words(&signatures))),
        // supported_versions, in a vector with a length of one byte.
        extension(43, &[8, 3, 4, 3, 3, 3, 2, 3, 1]),
        // key_share: none.
        extension(51, &vector(&[])),
    ];
    let body = [
        vec![3, 3],
        RANDOM.to_vec(),
        // No session.
        vec![0],
        vector(&words(&ciphers)),
        // No compression.
        vec![1, 0],
        vector(&extensions.concat()),
    ];
    let body = body.concat();
    let message = [[1, 0].as_slice(), &vector(&body)].concat();
    [[22, 3, 1].as_slice(), &vector(&message)].concat()
}

fn words(values: &[u16]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect()
}

/// Bytes after their length in two bytes; what is put into one here has a few hundred.
fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [length.to_be_bytes().as_slice(), bytes].concat()
}

fn extension(number: u16, contents: &[u8]) -> Vec<u8> {
    [number.to_be_bytes().as_slice(), &vector(contents)].concat()
}
