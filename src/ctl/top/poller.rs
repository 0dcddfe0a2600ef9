//! The thread that speaks with the balancer while the screen goes on: it looks in its interval,
//! passes commands on, and connects again after trouble, which is told.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::time::Duration;

use crate::base::time::Moment;
use crate::ctl::change;
use crate::ctl::client::Client;
use crate::ctl::status::Status;
use crate::sys::clock;

/// Orders that wait at most: each is a key that somebody has pressed.
const ORDERS_MAX: usize = 16;

/// What the screen wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// A command that changes something.
    Command(String),
    /// Another time between two looks.
    Interval(Duration),
}

/// The state at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    pub(super) at: Moment,
    pub(super) status: Status,
}

/// What there is to tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    Sample(Box<Sample>),
    /// There is no answer, and why.
    Lost(String),
    /// A command was done, or refused with this reason.
    Done(String, Result<(), String>),
}

/// The two ends that the screen has.
#[derive(Debug)]
pub(super) struct Poller {
    pub(super) orders: Sender<Order>,
    pub(super) news: Receiver<News>,
}

/// Starts the thread, which ends when the screen's ends are dropped.
pub(super) fn start(client: Client, interval: Duration) -> io::Result<Poller> {
    let (orders, ordered) = bounded(ORDERS_MAX);
    let (told, news) = bounded(1);
    std::thread::Builder::new()
        .name("poller".to_owned())
        .spawn(move || poll(&client, interval, &ordered, &told))?;
    Ok(Poller { orders, news })
}

fn poll(client: &Client, mut interval: Duration, orders: &Receiver<Order>, told: &Sender<News>) {
    loop {
        let news = match Status::ask(client) {
            Ok(status) => News::Sample(Box::new(Sample {
                at: clock::now(),
                status,
            })),
            Err(trouble) => News::Lost(trouble.to_string()),
        };
        if told.send(news).is_err() {
            return;
        }
        match orders.recv_timeout(interval) {
            Ok(Order::Command(command)) => {
                let outcome = change::order(client, &command);
                let outcome = outcome.map_err(|trouble| trouble.to_string());
                if told.send(News::Done(command, outcome)).is_err() {
                    return;
                }
            }
            Ok(Order::Interval(wanted)) => interval = wanted,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
