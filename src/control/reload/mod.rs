//! Reload in place: the running process takes another configuration up.
//!
//! The files are read on a thread of their own. What the plan they make has in common with the one
//! in force keeps its numbers, what a running process can't change is put back and named, and new
//! addresses are bound: up to here nothing has changed, and an error changes nothing. Then the next
//! world is made and sent to the shards. When all have taken it up, and nobody refers to what it
//! doesn't know, the control thread goes over to it: states, tables, probes, logs.
//!
//! What was removed is there until nothing is left of it; a world without it follows in the same
//! way. So does a change that a runtime command makes: it is a reload of the plan in force, edited.

mod gate;
mod history;
mod report;
mod room;
mod sockets;
mod take_up;

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::sync::{Arc, PoisonError};
use tokio::sync::{mpsc, oneshot};

use super::listeners::{INHERITED_AT_START, PageListener};
use super::messages::{Severity, format as message_line};
use super::passive::Passive;
use super::resolve::SystemEnvironment;
use super::{Api, Shared, probe};
use crate::base::ids::{ListenerId, ProxyId, ServerId};
use crate::base::time::Moment;
use crate::config::change::{self, Change};
use crate::config::edit;
use crate::config::plan::{Endpoint, Global, Listener, LogSink, LogTarget, Numbers, Plan};
use crate::shard::{Message, Renewal, World};
use crate::sys::{clock, process as system};
pub use gate::{Edit, Gate, Loaded, Loader, Origin, Report, Request, Wish};
pub use history::{Entry, Tally};
use report::message_of;
use room::Lowered;
pub use room::{Room, Short};
use sockets::Sockets;

/// What the reloader waits for.
enum State {
    Idle,
    /// The files are read.
    Loading(oneshot::Receiver<Loaded>),
    /// Shards take a world up.
    Renewing(Box<Pending>),
    /// It is in force; who is no shard takes it up.
    Following(Box<Following>),
}

/// What is to be said when all work by the world in force.
struct Following {
    /// Each ends when somebody does.
    waits: Vec<oneshot::Receiver<()>>,
    changes: Vec<Change>,
    kept: Vec<String>,
    warnings: Vec<String>,
}

/// A world on its way to the shards.
struct Pending {
    world: Arc<World>,
    before: Arc<World>,
    changes: Vec<Change>,
    kept: Vec<String>,
    warnings: Vec<String>,
    /// New listeners of pages.
    of_pages: Vec<PageListener>,
}

/// What has happened.
pub(super) enum Event {
    Requested(Box<Request>),
    Loaded(Box<Loaded>),
    Followed,
}

/// The control thread's part.
pub(super) struct Reloader {
    requests: mpsc::Receiver<Request>,
    probes: mpsc::Sender<probe::Renewal>,
    origin: Option<Origin>,
    sockets: Option<Sockets>,
    numbers: Numbers,
    state: State,
    /// Those for whom it works, and since when.
    working_for: Vec<Request>,
    /// A command has edited the plan: no file was read.
    is_edit: bool,
    /// What it has changed, while something follows from that.
    edited: Vec<Change>,
    began: Moment,
    /// There are fewer connections than there would be.
    lowered: Option<Lowered>,
    /// Sockets for datagrams that listeners have had: shards never use a place of one again.
    datagram_listeners: usize,
}

impl Reloader {
    /// For a process that has started.
    pub(super) fn new(shared: &Shared, probes: mpsc::Sender<probe::Renewal>) -> Reloader {
        let waiting = shared.reload.waiting.lock();
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner).take();
        let mut numbers = Numbers::default();
        // The first plan keeps the numbers that it has, so nothing can be wrong with them.
        let known = numbers.carry_over(&mut shared.world().configured());
        debug_assert!(known.is_ok());
        Reloader {
            requests: waiting.unwrap_or_else(|| mpsc::channel(1).1),
            probes,
            origin: None,
            sockets: None,
            numbers,
            state: State::Idle,
            working_for: Vec::new(),
            is_edit: false,
            edited: Vec::new(),
            began: Moment(0),
            lowered: None,
            datagram_listeners: 0,
        }
    }

    /// The process has what reloads need, and its sockets are served from now on.
    pub(super) fn serve(&mut self, shared: &Arc<Shared>, api: Api) {
        self.origin = Some(api.origin);
        let (sockets, served) = Sockets::serve_first(shared, api.registry, api.sockets);
        self.sockets = Some(sockets);
        if let Err(error) = served {
            let text = format!("Cannot serve the frontends in 'mode http': {error}");
            shared.messages.console(Severity::Alert, &text);
        }
    }

    /// Waits for what comes next. What shards do is looked at by [`Reloader::look`].
    pub(super) async fn next(&mut self) -> Event {
        match &mut self.state {
            State::Idle if self.sockets.is_some() => match self.requests.recv().await {
                Some(request) => Event::Requested(Box::new(request)),
                None => std::future::pending().await,
            },
            State::Loading(loading) => {
                let gone = || Err(vec!["The files could not be read.".to_owned()]);
                Event::Loaded(Box::new(loading.await.unwrap_or_else(|_| gone())))
            }
            State::Following(following) => {
                while let Some(last) = following.waits.last_mut() {
                    // It may have ended in any way.
                    let _ = last.await;
                    following.waits.pop();
                }
                Event::Followed
            }
            State::Idle | State::Renewing(_) => std::future::pending().await,
        }
    }

    /// Goes on.
    pub(super) fn on(&mut self, shared: &Arc<Shared>, event: Event) {
        match event {
            Event::Requested(request) => self.requested(shared, *request),
            Event::Loaded(loaded) => {
                self.state = State::Idle;
                match *loaded {
                    Ok((mut plan, warnings)) => {
                        let (before, outside) = (shared.world(), SystemEnvironment::new());
                        let kept = edit::carry_over(&before.plan, &mut plan, &outside);
                        self.begin(shared, plan, warnings, kept);
                    }
                    Err(errors) => self.refuse(shared, errors),
                }
            }
            Event::Followed => {
                let state = std::mem::replace(&mut self.state, State::Idle);
                match state {
                    State::Following(said) if self.is_edit => {
                        self.report_edit(shared, &said.changes, said.warnings);
                    }
                    State::Following(said) => self.report(shared, *said),
                    State::Idle | State::Loading(_) | State::Renewing(_) => {}
                }
            }
        }
    }

    fn requested(&mut self, shared: &Arc<Shared>, request: Request) {
        self.began = clock::now();
        let Request { by, wish, reply } = request;
        let (edit, wish) = match wish {
            Wish::Files => (None, Wish::Files),
            Wish::Edited(edit) => (Some(edit), Wish::Files),
        };
        self.is_edit = edit.is_some();
        self.working_for.push(Request { by, wish, reply });
        if shared.is_stopping() {
            return self.refuse(shared, vec![message_of(self.is_edit, STOPPING)]);
        }
        if let Some(edit) = edit {
            let mut plan = shared.world().configured();
            return match edit(&mut plan) {
                Ok(said) => self.begin(shared, plan, said, Vec::new()),
                Err(text) => self.refuse(shared, vec![text]),
            };
        }
        let loader = self
            .origin
            .as_ref()
            .and_then(|origin| origin.loader.clone());
        let Some(loader) = loader else {
            let text = "There are no files to read again: nothing was changed.";
            return self.refuse(shared, vec![message_line(Severity::Alert, text)]);
        };
        let since_us = self.began.0 / 1_000;
        system::notify_service(&format!("RELOADING=1\nMONOTONIC_USEC={since_us}"));
        let (sender, loading) = oneshot::channel();
        let body = move || {
            let _ = sender.send((loader.0)());
        };
        let thread = std::thread::Builder::new().name("reload".to_owned());
        match thread.spawn(body) {
            Ok(_) => self.state = State::Loading(loading),
            Err(error) => {
                let text = format!("Cannot start a thread to read the files: {error}");
                self.refuse(shared, vec![message_line(Severity::Alert, &text)]);
            }
        }
    }

    /// Everything up to the point where shards learn of it. `kept` = what there is to say of what
    /// stays, or doesn't, in spite of the files.
    fn begin(
        &mut self,
        shared: &Arc<Shared>,
        plan: Plan,
        warnings: Vec<String>,
        kept: Vec<String>,
    ) {
        match self.prepare(shared, plan) {
            Ok(mut pending) => {
                pending.warnings = warnings;
                pending.kept.extend(kept);
                self.state = State::Renewing(Box::new(pending));
            }
            Err(errors) => {
                let line = |text: &String| message_of(self.is_edit, text);
                self.refuse(shared, errors.iter().map(line).collect());
            }
        }
    }

    fn prepare(&mut self, shared: &Arc<Shared>, mut plan: Plan) -> Result<Pending, Vec<String>> {
        let before = shared.world();
        let (Some(origin), Some(sockets)) = (&mut self.origin, &mut self.sockets) else {
            return Err(vec!["The process has not started yet.".to_owned()]);
        };
        let mut numbers = self.numbers.clone();
        numbers.carry_over(&mut plan).map_err(|text| vec![text])?;
        let configured = before.configured();
        let mut asked = plan.global.clone();
        // Who edits, or drops what has gone, asks nothing new of the process.
        let reads_files = !self.is_edit && !self.working_for.is_empty();
        let asked_before = if reads_files { &origin.asked } else { &asked };
        let settled = change::settle(asked_before, &configured, &mut plan);
        let mut kept: Vec<String> = settled.iter().map(Change::to_string).collect();
        let room = room::maxconn(&before, origin, &plan, reads_files, self.lowered, &mut kept);
        let (maxconn, lowered) = room.map_err(|text| vec![text])?;
        if let Some(news) = lowered.filter(|lowered| self.lowered.as_ref() != Some(lowered)) {
            match reads_files {
                true => kept.push(news.to_string()),
                // Who adds a server has not asked for that.
                false => shared
                    .messages
                    .console(Severity::Notice, &format!("{news}.")),
            }
        }
        if plan.has_datagrams() && !origin.has_datagrams {
            let text = "A process that was started without a listener of datagrams has put nothing \
                        aside for flows: a restart is needed.";
            return Err(vec![text.to_owned()]);
        }
        let inherited = inherited_targets(&configured);
        if let Some(number) = inherited_targets(&plan).difference(&inherited).next() {
            return Err(vec![format!(
                "log target fd@{number}: {INHERITED_AT_START}"
            )]);
        }
        let new_datagrams = datagram_sockets(&before, &plan);
        if self.datagram_listeners + new_datagrams > DATAGRAM_LISTENERS_MAX {
            let text = "Too many listeners for datagrams have come and gone: a restart is needed.";
            return Err(vec![text.to_owned()]);
        }
        let changes = change::differences(&configured, &plan);

        let opened = sockets.exchange(shared, &before, &plan)?;
        // Nothing fails from here on.
        let planned: HashSet<ListenerId> = plan.listeners.iter().map(|l| l.listener_id).collect();
        for gone in configured.listeners.iter().map(|l| l.listener_id) {
            if !planned.contains(&gone) {
                numbers.forget_listener(gone);
            }
        }
        if self.is_edit {
            // Deleted, not left out: the same name is another server next time.
            let planned: HashSet<ServerId> = server_ids(&plan).collect();
            let gone = server_ids(&configured).filter(|id| !planned.contains(id));
            gone.for_each(|id| numbers.forget_server(id));
        }
        kept.extend(opened.short);
        if reads_files {
            settle_asked(&mut asked, &origin.asked, &settled);
            origin.asked = asked;
        }
        self.datagram_listeners += new_datagrams;
        self.numbers = numbers;
        self.lowered = lowered;
        let (world, woken) = before.next(Arc::new(plan), maxconn);
        opened
            .without
            .iter()
            .for_each(|id| world.has_no_socket(*id));
        let world = Arc::new(world);
        for (port, listeners) in world.ports.iter().zip(opened.of_shards) {
            let world = Arc::clone(&world);
            let renewal = Renewal { world, listeners };
            let mut unsent = port.send(Message::Renew(Box::new(renewal)));
            while let Err(back) = unsent {
                std::thread::yield_now();
                unsent = port.send(back);
            }
            if woken.has(port.shard) {
                port.limit_freed();
            }
        }
        Ok(Pending {
            world,
            before,
            changes,
            kept,
            warnings: Vec::new(),
            of_pages: opened.of_pages,
        })
    }

    /// Looks whether all shards have the world that is on its way, and goes over to it if so. Then
    /// whatever has nothing left is dropped in the same way.
    pub(super) fn look(&mut self, shared: &Arc<Shared>, passive: &mut Passive) {
        if let State::Renewing(pending) = &self.state {
            let generation = pending.world.generation;
            let mut ports = pending.world.ports.iter();
            if !ports.all(|port| port.generation() >= generation) {
                return;
            }
            let State::Renewing(pending) = std::mem::replace(&mut self.state, State::Idle) else {
                return;
            };
            self.finish(shared, passive, *pending);
        }
    }

    /// Drops what was removed and has nothing left. Called once a second.
    pub(super) fn sweep(&mut self, shared: &Arc<Shared>) {
        let rests = matches!(self.state, State::Idle) && self.sockets.is_some();
        if !rests || shared.is_stopping() {
            return;
        }
        let world = shared.world();
        if world.has_quiet_listeners() {
            world.ports.iter().for_each(|port| port.look_at_acceptors());
        }
        if world.is_stale() {
            (self.began, self.is_edit) = (clock::now(), false);
            self.begin(shared, shared.world().configured(), Vec::new(), Vec::new());
        }
    }

    fn finish(&mut self, shared: &Arc<Shared>, passive: &mut Passive, pending: Pending) {
        let Pending {
            world,
            before,
            changes,
            kept,
            warnings,
            of_pages,
        } = pending;
        // What was told of numbers that are given back now was told of what they meant before.
        passive.hear(shared);
        world.open_listeners();
        let proxies: HashSet<ProxyId> = world.plan.proxies.iter().map(|p| p.proxy_id).collect();
        self.numbers.keep(
            |n| u16::try_from(n).is_ok_and(|n| proxies.contains(&ProxyId(n))),
            |n| u16::try_from(n).is_ok_and(|n| world.listener(ListenerId(n)).is_some()),
            |n| world.server_of(ServerId(n)).is_some(),
        );
        shared.world.store(Arc::clone(&world));
        let sockets = self.sockets.as_mut();
        let waits = sockets.map(|sockets| sockets.serve(of_pages));
        shared.rates.keep(&world);
        take_up::states(shared, &before, &world, self.is_edit);
        let errors = passive.renew(&before, &world);
        let (probes, next) = (self.probes.clone(), Arc::clone(&world));
        let keeps_health = self.is_edit;
        tokio_uring::spawn(async move {
            let _ = probes
                .send(probe::Renewal {
                    world: next,
                    errors,
                    keeps_health,
                })
                .await;
        });
        world.log_queue.notify();
        // What a command has deleted has nothing left: it is gone when the answer comes.
        let is_first = self.is_edit && !changes.is_empty();
        if is_first
            && world.is_stale()
            && let Ok(mut pending) = self.prepare(shared, shared.world().configured())
        {
            (self.edited, pending.warnings) = (changes, warnings);
            self.state = State::Renewing(Box::new(pending));
            return;
        }
        self.state = State::Following(Box::new(Following {
            waits: waits.unwrap_or_default(),
            changes: [std::mem::take(&mut self.edited), changes].concat(),
            kept,
            warnings,
        }));
    }
}

fn server_ids(plan: &Plan) -> impl Iterator<Item = ServerId> {
    let backs = plan.proxies.iter().filter_map(|proxy| proxy.back.as_ref());
    backs
        .flat_map(|back| &back.servers)
        .map(|server| server.server_id)
}

/// Why there is no reload at the end.
const STOPPING: &str = "The process is draining or ending: nothing was changed.";

/// Listeners of datagrams that a process may have in its time: shards number them in 16 bits.
const DATAGRAM_LISTENERS_MAX: usize = 60_000;

/// Listeners of datagrams that a plan has and a world doesn't.
fn datagram_sockets(before: &World, plan: &Plan) -> usize {
    let is_new = |listener: &&Arc<Listener>| {
        let is_datagram = matches!(listener.endpoint, Endpoint::Datagram(_));
        is_datagram && before.listener(listener.listener_id).is_none()
    };
    plan.listeners.iter().filter(is_new).count()
}

/// Numbers of descriptors that a plan has lines written to. A new one may be anything's by now.
fn inherited_targets(plan: &Plan) -> HashSet<RawFd> {
    let of_proxies = plan.proxies.iter().flat_map(|proxy| &proxy.logs);
    let targets = plan.global.logs.iter().chain(of_proxies);
    let number = |target: &Arc<LogTarget>| match target.sink {
        LogSink::Descriptor(number) => Some(number),
        _ => None,
    };
    targets.filter_map(number).collect()
}

/// What stays as it was has not been followed: the next reload says so again.
fn settle_asked(asked: &mut Global, before: &Global, settled: &[Change]) {
    if settled.iter().any(|change| change.proxy.is_none()) {
        let (maxconn, rates) = (asked.maxconn, (asked.connection_rate, asked.session_rate));
        *asked = Global {
            maxconn,
            connection_rate: rates.0,
            session_rate: rates.1,
            ..before.clone()
        };
    }
}
