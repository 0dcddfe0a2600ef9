//! Any text as the form of log lines, in each of its places: a plan, or messages that say why not.
//! The text is one quoted word: what quotes and backslashes mean is the lexer's business.

#![no_main]

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config;
use tidegate::config::plan::LineFormat;

const NAMES: [&str; 4] = [
    "log-format",
    "log-format-sd",
    "error-log-format",
    "unique-id-format",
];

fuzz_target!(|input: (u8, &str)| {
    let (place, form) = input;
    if form.is_empty() || form.contains(['\'', '\r', '\n', '\0']) {
        return;
    }
    let name = NAMES[usize::from(place) % NAMES.len()];
    let text = format!(
        "defaults\n timeout client 1s\n timeout connect 1s\n timeout server 1s\nlisten l\n \
         bind :1\n log 127.0.0.1 local0\n server s 192.0.2.1:1\n {name} '{form}'\n"
    );
    let (plan, messages) = config::load_text("fuzz.cfg", text, &World);
    let Some(plan) = plan else {
        assert!(messages.iter().any(|message| message.is_fatal()));
        return;
    };
    let lines = &plan.proxies[0].front.as_ref().expect("a frontend").lines;
    let read = [
        Some(&lines.line),
        lines.structured.as_ref(),
        lines.error.as_ref(),
        lines.unique_id.as_ref(),
    ];
    let read = read[usize::from(place) % NAMES.len()].expect("it was read");
    assert!(pieces_are_whole(read), "{read:?}");
});

/// Text in one piece, no blank at the beginning, and none beside another.
fn pieces_are_whole(format: &LineFormat) -> bool {
    use tidegate::config::plan::Piece;
    let pieces = &format.pieces;
    let doubled = pieces.windows(2).any(|pair| {
        matches!(
            pair,
            [Piece::Space, Piece::Space] | [Piece::Text(_), Piece::Text(_)]
        )
    });
    !doubled && !matches!(pieces.first(), Some(Piece::Space))
}
