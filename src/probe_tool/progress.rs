//! The line that says how far a test is: in place on a terminal, now and then otherwise. On
//! standard error, as standard output is for the result.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

use super::tally::Tally;
use crate::sys::clock;

/// Between two lines.
const IN_PLACE: Duration = Duration::from_millis(200);
const ONE_BELOW_THE_OTHER: Duration = Duration::from_secs(5);

/// Tells of a test, for ever: it is dropped with the test.
pub(super) async fn tell(name: &str, tally: &Rc<RefCell<Tally>>) {
    let in_place = std::io::stderr().is_terminal();
    let pause = if in_place {
        IN_PLACE
    } else {
        ONE_BELOW_THE_OTHER
    };
    let begun = clock::now();
    let (mut last, mut last_at) = (0, begun);
    loop {
        tokio::time::sleep(pause).await;
        let now = clock::now();
        let (succeeded, failed) = {
            let tally = tally.borrow();
            (tally.succeeded, tally.failed())
        };
        let count = succeeded + failed;
        let rate = count.saturating_sub(last) as f64 / (now - last_at).as_secs_f64().max(0.001);
        (last, last_at) = (count, now);
        let text = format!(
            "{name}: {:.0} s, {succeeded} succeeded, {failed} failed, {rate:.0}/s",
            (now - begun).as_secs_f64()
        );
        let text = if in_place {
            format!("\r\x1b[K{text}")
        } else {
            format!("{text}\n")
        };
        write(&text);
    }
}

/// Takes the line away.
pub(super) fn clear() {
    if std::io::stderr().is_terminal() {
        write("\r\x1b[K");
    }
}

fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
