//! `ctl top`: a live screen of frontends, backends and servers.
//!
//! `poller` speaks with the balancer in a thread of its own, `app` is the state and what keys do,
//! `rows` what the table holds, `draw` puts it on the terminal. Here is the loop between them, and
//! the terminal's state: whatever ends the program, it is given back as it was.

mod app;
mod draw;
mod poller;
mod rows;

use nix::sys::signal::Signal;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use std::io::{self, IsTerminal};
use std::time::Duration;

use super::client::{Client, Trouble};
use super::options::{Top, Verdict};
use crate::sys::interrupt;
use app::{App, Effect};
use crossbeam::channel::Receiver;

/// How long a key is waited for before there is another look at what is new.
const TICK: Duration = Duration::from_millis(50);

/// Runs until somebody quits. The screen leaves nothing behind, so there is nothing to print.
pub(super) fn run(client: &Client, options: &Top) -> Result<(String, Verdict), Trouble> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "top needs a terminal; detailed --json has its numbers";
        return Err(Trouble::Strange(text.to_owned()));
    }
    let failed = |error: io::Error| Trouble::Strange(format!("the terminal failed: {error}"));
    let interrupted = interrupt::watch().map_err(failed)?;
    let poller = poller::start(client.clone(), options.interval).map_err(failed)?;
    let _screen = Screen::enter().map_err(failed)?;
    show(&poller, options.interval, &interrupted).map_err(failed)?;
    Ok((String::new(), Verdict::Ok))
}

fn show(
    poller: &poller::Poller,
    interval: Duration,
    interrupted: &Receiver<Signal>,
) -> io::Result<()> {
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut app = App::new(interval);
    let mut is_stale = true;
    while interrupted.try_recv().is_err() {
        for news in poller.news.try_iter() {
            app.tell(news);
            is_stale = true;
        }
        if std::mem::take(&mut is_stale) {
            terminal.draw(|frame| draw::draw(&mut app, frame))?;
        }
        if !event::poll(TICK)? {
            continue;
        }
        is_stale = true;
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match app.key(key) {
                Effect::Nothing => {}
                Effect::Quit => return Ok(()),
                // The poller waits for an answer: what doesn't fit was pressed far too often.
                Effect::Order(order) => drop(poller.orders.try_send(order)),
            },
            // Drawn anew, in the new size.
            _ => {}
        }
    }
    Ok(())
}

/// The terminal as the screen needs it, and back again when dropped or at a panic.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Screen> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            Screen::leave();
            before(panic);
        }));
        enable_raw_mode()?;
        let screen = Screen;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// What can't be given back is gone: there is nobody to tell.
    fn leave() {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        Screen::leave();
    }
}
