//! Where reloads are asked for: by signals and by runtime commands, and what they go by.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::history::{Entry, History, Tally};
use super::report::message_of;
use super::room::Room;
use crate::config::plan::{Global, Plan};

/// Reloads that may wait for the one under way. Those of the files become one.
const WAITING_MAX: usize = 64;

/// What reading the files brings: a plan with what is to be said of it, or why there is none.
pub type Loaded = Result<(Plan, Vec<String>), Vec<String>>;

/// Reads the files of the start again.
#[derive(Clone)]
pub struct Loader(pub(super) Arc<dyn Fn() -> Loaded + Send + Sync>);

impl Loader {
    /// By this function, which runs on a thread of its own.
    pub fn new(load: impl Fn() -> Loaded + Send + Sync + 'static) -> Loader {
        Loader(Arc::new(load))
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}

/// What a process goes by when it reloads.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Reads its files; `None` = it has none.
    pub loader: Option<Loader>,
    /// The global section as it was written, before the start filled in what it left open.
    pub asked: Global,
    /// It was started with listeners of datagrams: memory and sockets were put aside for flows.
    pub has_datagrams: bool,
    /// The command line says how many connections there may be.
    pub maxconn_is_fixed: bool,
    /// How many there are descriptors for.
    pub room: Room,
}

/// Changes a plan and says what there is to say of that; the error says why it can't be changed
/// like that.
pub type Edit = Box<dyn FnOnce(&mut Plan) -> Result<Vec<String>, String> + Send>;

/// What is wanted.
pub enum Wish {
    /// The files, as they are now.
    Files,
    /// The plan in force, edited.
    Edited(Edit),
}

/// A reload that somebody asks for.
pub struct Request {
    /// Who does, in words.
    pub(super) by: &'static str,
    pub(super) wish: Wish,
    pub(super) reply: Option<oneshot::Sender<Report>>,
}

/// How a reload went.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether the configuration is in force.
    pub success: bool,
    /// What there is to say, a line each.
    pub messages: Vec<String>,
}

/// Where reloads are asked for, and what is known of those that were.
#[derive(Debug)]
pub struct Gate {
    requests: mpsc::Sender<Request>,
    /// The other end, until the control thread takes it.
    pub(super) waiting: Mutex<Option<mpsc::Receiver<Request>>>,
    history: Mutex<History>,
}

impl Gate {
    /// Nobody has asked yet.
    pub(in crate::control) fn new() -> Gate {
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        Gate {
            requests,
            waiting: Mutex::new(Some(waiting)),
            history: Mutex::default(),
        }
    }

    /// Nobody will ever serve it.
    pub(in crate::control) fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = None;
    }

    /// Asks for a reload of the files, and doesn't wait for it. Where as many wait as may, the
    /// files will be read anyway.
    pub fn ask(&self, by: &'static str) {
        let (wish, reply) = (Wish::Files, None);
        let _ = self.requests.try_send(Request { by, wish, reply });
    }

    /// Asks for a change and waits until it is in force or refused.
    pub async fn wait(&self, by: &'static str, wish: Wish) -> Report {
        let (reply, report) = oneshot::channel();
        let reply = Some(reply);
        let is_edit = matches!(wish, Wish::Edited(_));
        let refused = |text: &str| Report {
            success: false,
            messages: vec![message_of(is_edit, text)],
        };
        let ended = || refused("The process is ending.");
        match self.requests.try_send(Request { by, wish, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return refused("Too many reloads wait already."),
            Err(TrySendError::Closed(_)) => return ended(),
        }
        report.await.unwrap_or_else(|_| ended())
    }

    /// How those of the files went.
    pub fn tally(&self) -> Tally {
        self.locked().tally()
    }

    /// The last reloads, the latest one first.
    pub fn history(&self) -> Vec<Entry> {
        self.locked().entries()
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
