//! What follows from a change of a server: servers that track it change too, and sessions end where
//! the configuration says so.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::admin::Standing;
use super::{Shared, admin, apply, operator};
use crate::base::ids::ServerId;
use crate::config::plan::Tracked;
use crate::flow::Who;
use crate::health::{Rules, Transition, Verdicts, Witness};
use crate::lb::{Admin, Backend, Health, Server};
use crate::shard::{Message, World};

/// Who tracks a server, by `ServerId`.
pub(super) type Followers = Vec<Vec<ServerId>>;

/// What is said of every server at the start, and who follows whom. Servers take the state of those
/// that they track before anybody looks.
pub(super) fn at_start(world: &World) -> (Vec<Verdicts>, Vec<Standing>, Followers) {
    let count = world.plan.servers_count as usize;
    let mut verdicts = vec![Verdicts::default(); count];
    let mut standings = vec![Standing::of(Admin::Ready); count];
    let followers = followers(world);
    let mut following = Vec::new();
    // Without an address, as in maintenance.
    let mut unresolved = HashSet::new();
    for backend in world.backends.iter().flatten() {
        for server in &backend.servers {
            let id = server.id.0 as usize;
            standings[id] = Standing::of(server.admin());
            if let Some(check) = &server.plan.check {
                apply::report_of(server).health = Rules::of(check).health();
            }
            if !server.resolved() {
                unresolved.insert(id);
            }
            if server.health() == Health::Down {
                verdicts[id].hear(Witness::Check, false);
            }
            if server.plan.watch.tracks.is_some() {
                following.push(server);
            }
        }
    }
    for server in following {
        let Some(root) = root_of(world, server) else {
            continue;
        };
        if root.health() == Health::Down {
            verdicts[server.id.0 as usize].hear(Witness::Tracked, false);
            server.set_health(Health::Down);
        }
    }
    // What is disabled in the middle of a chain takes those behind it along.
    let stands_out = |id: &usize| standings[*id].own != Admin::Ready || unresolved.contains(id);
    let mut queue: VecDeque<usize> = (0..count).filter(stands_out).collect();
    while let Some(id) = queue.pop_front() {
        let inherited = if unresolved.contains(&id) {
            Admin::Maintenance
        } else {
            standings[id].effective()
        };
        for follower in &followers[id] {
            let Some((_, server)) = world.server_of(*follower) else {
                continue;
            };
            let follower = server.id.0 as usize;
            if standings[follower].inherited != inherited {
                standings[follower].inherited = inherited;
                server.set_admin(standings[follower].effective());
                queue.push_back(follower);
            }
        }
    }
    for backend in world.backends.iter().flatten() {
        let is_one = |server: &Arc<Server>| server.plan.watch.tracks.is_some();
        if backend.servers.iter().any(is_one) {
            backend.begin();
        }
    }
    (verdicts, standings, followers)
}

/// Who tracks whom.
pub(super) fn followers(world: &World) -> Followers {
    let mut followers: Followers = vec![Vec::new(); world.plan.servers_count as usize];
    let backends = world.backends.iter().flatten();
    for server in backends.flat_map(|backend| &backend.servers) {
        let tracked = server.plan.watch.tracks.as_ref();
        let tracked = tracked.and_then(|tracked| followers.get_mut(tracked.server_id.0 as usize));
        if let Some(of) = tracked {
            of.push(server.id);
        }
    }
    followers
}

/// The server whose checks decide about this one: itself, or the last one that is tracked.
pub(super) fn root_of<'a>(world: &'a World, server: &'a Arc<Server>) -> Option<&'a Arc<Server>> {
    let mut server = server;
    // The configuration has no circles.
    while let Some(Tracked { server_id, .. }) = &server.plan.watch.tracks {
        server = world.server_of(*server_id)?.1;
    }
    Some(server)
}

/// After a server has gone out of service or come back: sessions end where that is wanted, and
/// servers that track it follow.
pub(super) fn after_change(shared: &Shared, backend: &Backend, server: &Server, to: Transition) {
    let watch = &server.plan.watch;
    if to == Transition::Down && watch.ends_sessions {
        end_sessions(shared, server.id, Who::MarkedDown);
    }
    if to == Transition::Up && watch.ends_backup_sessions && !server.plan.backup {
        let backups = backend.servers.iter().filter(|server| server.plan.backup);
        for backup in backups {
            end_sessions(shared, backup.id, Who::MarkedUp);
        }
    }
    follow(shared, server);
}

/// Those that track a server take its state. They report it, and so have their own follow.
pub(super) fn follow(shared: &Shared, server: &Server) {
    let (world, followers) = (shared.world(), shared.followers());
    for follower in followers.get(server.id.0 as usize).into_iter().flatten() {
        let Some((backend, follower)) = world.server_of(*follower) else {
            continue;
        };
        let admin = server.admin();
        if admin == Admin::Maintenance {
            admin::set_inherited(shared, backend, follower, admin);
            continue;
        }
        let tracked = follower.plan.watch.tracks.as_ref();
        let reason = tracked.map_or(String::new(), |tracked| format!(" via {}", tracked.name));
        match server.health() {
            Health::Stopping => operator::stop_too(shared, backend, follower, &reason),
            Health::Up | Health::NotChecked if follower.health() == Health::Stopping => {
                operator::resume(shared, backend, follower, &reason);
            }
            health => {
                let says_up = health != Health::Down;
                let change = apply::hear(shared, backend, follower, Witness::Tracked, says_up);
                if let Some(change) = change {
                    apply::report_change(shared, backend, follower, change, &reason);
                }
            }
        }
        admin::set_inherited(shared, backend, follower, admin);
    }
}

/// Has every shard end its sessions of a server.
pub(super) fn end_sessions(shared: &Shared, server: ServerId, who: Who) {
    // One that has not begun has no sessions.
    let world = shared.world();
    let ports = world.ports.iter();
    for port in ports.filter(|port| port.gauges.turns.load(Relaxed) > 0) {
        let mut unsent = port.send(Message::EndSessions(server, who));
        while let Err(back) = unsent {
            std::thread::yield_now();
            unsent = port.send(back);
        }
    }
}
