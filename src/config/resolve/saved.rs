//! Which state file says how each server begins, and what of it still means something.
//!
//! A file that can't be read, or a line of one, is a warning: the servers begin as if there were
//! none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::config::diagnostics::{Diagnostic, Form, Place, Report, Severity};
use crate::config::draft::{Draft, ProxyDraft, StateSource};
use crate::config::environment::Environment;
use crate::config::plan::{Back, Plan, Proxy, SavedHealth, SavedService, SavedState, Server};
use crate::config::state_file::{self, Row};
use crate::config::{FILE_BYTES_MAX, plan};

/// Faults of a file that are said one by one.
const FAULTS_MAX: usize = 10;

/// The lines of a file, by backend and server.
type Rows = HashMap<(String, String), Row>;

/// What files say of the plan's servers.
pub(super) fn states(
    draft: &Draft,
    plan: &Plan,
    environment: &dyn Environment,
    report: &mut Report,
) -> Vec<SavedState> {
    let mut reader = Reader {
        draft,
        environment,
        report,
    };
    let mut global: Option<Rows> = None;
    let mut states = Vec::new();
    for (proxy, draft) in plan.proxies.iter().zip(&draft.proxies) {
        let Some(back) = proxy.back.as_ref().filter(|_| !draft.settings.disabled) else {
            continue;
        };
        match draft.settings.state_source {
            StateSource::None => {}
            StateSource::Global if reader.draft.server_state_file.is_none() => {
                reader.no_file(draft);
            }
            StateSource::Global => {
                let rows = global.get_or_insert_with(|| reader.global());
                of_backend(rows, proxy, back, &mut states);
            }
            StateSource::Local => {
                let rows = reader.local(draft);
                of_backend(&rows, proxy, back, &mut states);
            }
        }
    }
    states
}

struct Reader<'a> {
    draft: &'a Draft,
    environment: &'a dyn Environment,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn no_file(&mut self, proxy: &ProxyDraft) {
        let text = format!(
            "backend '{}' configured to load server state file from global section \
             'server-state-file' directive. Unfortunately, 'server-state-file' is not set!",
            proxy.name
        );
        self.report.bare(Severity::Warning, &proxy.place, text);
    }

    fn global(&mut self) -> Rows {
        let name = self.draft.server_state_file.clone().unwrap_or_default();
        let path = self.path(&name);
        let shown = path.display();
        let open = format!("config: Can't open global server state file '{shown}'");
        let version =
            format!("config: Can't get version of the global server state file '{shown}'.");
        self.read(&path, &open, &version)
    }

    fn local(&mut self, proxy: &ProxyDraft) -> Rows {
        let name = proxy.settings.state_file_name.as_ref();
        let path = self.path(name.unwrap_or(&proxy.name));
        let (proxy, shown) = (&proxy.name, path.display());
        let open = format!("Proxy '{proxy}': Can't open server state file '{shown}'");
        let version =
            format!("Proxy '{proxy}': Can't get version of the server state file '{shown}'.");
        self.read(&path, &open, &version)
    }

    /// Names are those of files in `server-state-base`, unless they begin at the root.
    fn path(&self, name: &str) -> PathBuf {
        let base = self.draft.server_state_base.as_deref().unwrap_or_default();
        Path::new(base).join(name)
    }

    fn read(&mut self, path: &Path, open: &str, version: &str) -> Rows {
        let bytes = match self.environment.read(path) {
            Ok(bytes) if bytes.len() > FILE_BYTES_MAX => {
                self.say(
                    None,
                    format!("{open}: it is larger than {FILE_BYTES_MAX} bytes"),
                );
                return Rows::new();
            }
            Ok(bytes) => bytes,
            Err(error) => {
                self.say(None, format!("{open}: {error}"));
                return Rows::new();
            }
        };
        let Some((found, faults)) = state_file::read(&String::from_utf8_lossy(&bytes)) else {
            self.say(None, version.to_owned());
            return Rows::new();
        };
        for fault in faults.iter().take(FAULTS_MAX) {
            self.say(Some((path, fault.line)), fault.text.clone());
        }
        if let Some(more) = faults
            .len()
            .checked_sub(FAULTS_MAX)
            .filter(|more| *more > 0)
        {
            let text = format!("server state file '{}': {more} more lines", path.display());
            self.say(None, format!("{text} can't be read."));
        }
        let mut rows = Rows::new();
        for row in found {
            // Of several, the first one, as HAProxy has it.
            let key = (row.backend.clone(), row.server.clone());
            rows.entry(key).or_insert(row);
        }
        rows
    }

    fn say(&mut self, place: Option<(&Path, u32)>, text: String) {
        let place = place.map(|(path, line)| Place {
            file: path.to_string_lossy().into(),
            line,
        });
        let form = match place {
            Some(_) => Form::Parsing,
            None => Form::Bare,
        };
        self.report.push(Diagnostic {
            severity: Severity::Warning,
            place,
            word: None,
            form,
            text,
        });
    }
}

fn of_backend(rows: &Rows, proxy: &Proxy, back: &Back, states: &mut Vec<SavedState>) {
    if rows.is_empty() {
        return;
    }
    for (index, server) in back.servers.iter().enumerate() {
        let key = (proxy.name.to_string(), server.name.to_string());
        if let Some(row) = rows.get(&key) {
            states.push(state_of(row, proxy, index, server, back));
        }
    }
}

fn state_of(row: &Row, proxy: &Proxy, index: usize, server: &Server, back: &Back) -> SavedState {
    SavedState {
        proxy_id: proxy.proxy_id,
        index,
        service: service(row, server.disabled),
        health: health(row, server),
        weight: weight(row, server, &back.balance),
        changed_ago_s: row.changed_ago_s,
        check_status: row.check_status,
        check_position: row.check_position,
        checks_stopped: is_stopped(row.check_state) && server.check.is_some(),
        agent_stopped: is_stopped(row.agent_state) && server.watch.agent.is_some(),
    }
}

/// Operators come before the configuration, unless that has changed since: `disabled` holds if it
/// is new, and ends with the word.
fn service(row: &Row, disabled: bool) -> SavedService {
    let is = |bit: u8| row.admin_state & bit != 0;
    let was_disabled = is(state_file::CONFIGURED_MAINTENANCE);
    match (disabled, was_disabled) {
        (true, false) => SavedService::Maintenance,
        (false, true) => SavedService::Ready,
        (true, true) | (false, false) if is(state_file::FORCED_MAINTENANCE) => {
            SavedService::Maintenance
        }
        (true, true) | (false, false) if is(state_file::FORCED_DRAIN) => SavedService::Drain,
        (true, true) | (false, false) => SavedService::Ready,
    }
}

/// A server in maintenance has no health; one that tracks another has that one's. What nothing
/// could ever contradict is taken only of a server about which nothing else spoke.
fn health(row: &Row, server: &Server) -> Option<SavedHealth> {
    let out = state_file::FORCED_MAINTENANCE
        | state_file::INHERITED_MAINTENANCE
        | state_file::UNRESOLVED
        | state_file::HOST_MAINTENANCE;
    let is_out = row.admin_state & out != 0;
    let was_checked = (row.check_state | row.agent_state) & state_file::CONFIGURED != 0;
    let others_speak =
        was_checked || server.watch.agent.is_some() || server.passive != plan::Passive::default();
    let decides = server.check.is_some() || !others_speak;
    if is_out || server.watch.tracks.is_some() || !decides {
        return None;
    }
    Some(match row.op_state {
        0 => SavedHealth::Down,
        3 => SavedHealth::Stopping,
        _ => SavedHealth::Up,
    })
}

fn weight(row: &Row, server: &Server, balance: &plan::Balance) -> Option<u16> {
    let is_whole = row.weight == 0 || row.weight == server.weight;
    let fits = is_whole || !balance.is_static();
    Some(row.weight).filter(|_| row.initial_weight == server.weight && fits)
}

/// Whether there were probes, and operators had stopped them.
fn is_stopped(state: u8) -> bool {
    state & state_file::CONFIGURED != 0 && state & state_file::ENABLED == 0
}
