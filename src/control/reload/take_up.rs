//! What the control thread does when it goes over to the next world: servers that are new begin as
//! at the start, what was asked of others and is not any more says nothing against them, tables are
//! published.

use std::sync::Arc;

use crate::base::address::Address;
use crate::config::plan;
use crate::control::admin::{self, Standing};
use crate::control::{Shared, apply, batch, followers, saved, steps};
use crate::health::{Rules, Verdicts, Witness};
use crate::lb::{Admin, Backend, Health, Server};
use crate::shard::World;

/// Puts the states of servers and the tables of a world in force, which is the present one already.
/// `keeps_health` = a command has changed it: a server that it has moved stays what it was until
/// its checks say otherwise, as HAProxy has it.
pub(super) fn states(shared: &Shared, before: &World, world: &World, keeps_health: bool) {
    let count = world.plan.servers_count as usize;
    let followers = followers::followers(world);
    {
        let mut verdicts = shared.verdicts_locked();
        let verdicts_count = count.max(verdicts.len());
        verdicts.resize(verdicts_count, Verdicts::default());
        let mut standings = shared.standings_locked();
        let standings_count = count.max(standings.len());
        standings.resize(standings_count, Standing::of(Admin::Ready));
    }
    shared.followers.store(Arc::new(followers));
    let servers = || {
        let backends = world.backends.iter().flatten();
        backends.flat_map(|backend| backend.servers.iter().map(move |server| (backend, server)))
    };
    // Those who know servers by their names: a new one with an old name is another one.
    steps::keep(shared, |backend, name| {
        let is_meant = |of: &Backend, server: &Server| {
            (&*of.proxy.name, &*server.plan.name) == (backend, name) && !server.is_removed()
        };
        let mut meant = servers().filter(|(of, server)| is_meant(of, server));
        meant.any(|(_, server)| {
            let old = before.server_of(server.id);
            old.is_some_and(|(_, old)| old.is_same(server))
        })
    });
    // New ones first: others may take their state from them.
    for (_, server) in servers() {
        let old = before.server_of(server.id).map(|(_, old)| old);
        if !old.is_some_and(|old| old.is_same(server)) {
            begin(shared, server);
        }
    }
    let is_new = |server: &Server| {
        let old = before.server_of(server.id);
        !old.is_some_and(|(_, old)| old.is_same(server))
    };
    saved::begin(shared, is_new);
    batch::together(shared, || {
        for (backend, server) in servers() {
            match before.server_of(server.id) {
                Some((_, old)) if old.is_same(server) => {
                    if !Arc::ptr_eq(old, server) && !server.is_removed() {
                        follow(shared, backend, old, server, keeps_health);
                    }
                }
                _ => track(shared, world, backend, server),
            }
        }
        for (backend, server) in servers() {
            let tracked = |server: &Server| server.plan.watch.tracks.clone();
            let old = before.server_of(server.id);
            let old = old.filter(|(_, old)| old.is_same(server) && !old.is_removed());
            if old.is_some_and(|(_, old)| tracked(old) != tracked(server)) {
                track(shared, world, backend, server);
            }
        }
    });
    for backend in world.backends.iter().flatten() {
        let known = before.backend(backend.proxy.proxy_id);
        if !known.is_some_and(|known| Arc::ptr_eq(known, backend)) {
            apply::publish_now(shared, backend);
        }
    }
}

/// A server that nobody knew.
fn begin(shared: &Shared, server: &Server) {
    shared.agents.forget(server.id);
    let is_down = server.health() == Health::Down;
    shared.verdicts_of(server.id, |verdicts| {
        *verdicts = Verdicts::default();
        verdicts.hear(Witness::Check, !is_down);
    });
    shared.standing_of(server.id, |standing| {
        *standing = Standing::of(server.admin());
    });
    if let Some(check) = &server.plan.check {
        apply::report_of(server).health = Rules::of(check).health();
    }
}

/// A server that the plan has otherwise than before.
fn follow(
    shared: &Shared,
    backend: &Arc<Backend>,
    old: &Server,
    server: &Arc<Server>,
    keeps_health: bool,
) {
    let (before, plan) = (&old.plan, &server.plan);
    if before.disabled != plan.disabled {
        let own = match plan.disabled {
            true => Admin::Maintenance,
            false => Admin::Ready,
        };
        admin::set_own(shared, backend, server, own);
    }
    let moved = before.address != plan.address;
    if keeps_health {
        keep_tuning(old, server);
        if moved {
            // What sessions have met there says nothing of where they go now.
            say(shared, backend, server, Witness::Traffic, true);
        }
        return;
    }
    match (&before.check, &plan.check) {
        (Some(old), Some(new)) if !moved && old.address == new.address => {
            let mut report = apply::report_of(server);
            let rules = Rules::new(old.rise, old.fall).at(report.health);
            report.health = rules.carried_to(new.rise, new.fall).health();
        }
        (_, Some(check)) => {
            // Nothing is known of what is checked now.
            let is_up = check.init_state.is_up();
            server.restart_checks();
            apply::report_of(server).health = Rules::of(check).health();
            say(shared, backend, server, Witness::Traffic, true);
            say(shared, backend, server, Witness::Check, is_up);
            if is_up && server.health() == Health::NotChecked {
                server.set_health(Health::Up);
            }
        }
        (Some(_), None) => {
            say(shared, backend, server, Witness::Check, true);
            if server.health() == Health::Up {
                server.set_health(Health::NotChecked);
            }
        }
        (None, None) => {}
    }
    if before.watch.agent != plan.watch.agent {
        shared.agents.forget(server.id);
        say(shared, backend, server, Witness::Agent, true);
    }
    if moved || before.passive.breaker != plan.passive.breaker {
        say(shared, backend, server, Witness::Traffic, true);
    }
}

/// What operators have said of the address that checks and the agent ask is what they have said of
/// it beside the server's own: where it was the same as that, it still is.
fn keep_tuning(old: &Server, server: &Server) {
    let (before, plan) = (&old.plan, &server.plan);
    let follow = |said: &mut Option<Address>, before: Option<&Address>, now: Option<&Address>| {
        let (Some(Address::Ip(said)), Some(Address::Ip(before)), Some(Address::Ip(now))) =
            (said.as_mut(), before, now)
        else {
            return;
        };
        if said.ip() == before.ip() {
            said.set_ip(now.ip());
        }
        if said.port() == before.port() {
            said.set_port(now.port());
        }
    };
    let check = |plan: &plan::Server| plan.check.as_ref().map(|check| check.address.clone());
    let agent = |plan: &plan::Server| plan.watch.agent.as_ref().map(|a| a.address.clone());
    let tuning = server.tuned.get();
    if tuning.check_address.is_none() && tuning.agent_address.is_none() {
        return;
    }
    server.tuned.change(|tuning| {
        let (old, new) = (check(before), check(plan));
        follow(&mut tuning.check_address, old.as_ref(), new.as_ref());
        let (old, new) = (agent(before), agent(plan));
        follow(&mut tuning.agent_address, old.as_ref(), new.as_ref());
    });
}

/// Takes the state of the server that is tracked; without one nothing is said for it.
fn track(shared: &Shared, world: &World, backend: &Arc<Backend>, server: &Arc<Server>) {
    let tracked = server.plan.watch.tracks.as_ref();
    let tracked = tracked.and_then(|tracked| world.server_of(tracked.server_id));
    let (up, admin) = match tracked {
        Some((_, tracked)) if !tracked.resolved() => (true, Admin::Maintenance),
        Some((_, tracked)) => (tracked.health() != Health::Down, tracked.admin()),
        None => (true, Admin::Ready),
    };
    say(shared, backend, server, Witness::Tracked, up);
    admin::set_inherited(shared, backend, server, admin);
}

fn say(shared: &Shared, backend: &Backend, server: &Arc<Server>, witness: Witness, up: bool) {
    if let Some(change) = apply::hear(shared, backend, server, witness, up) {
        apply::report_change(
            shared,
            backend,
            server,
            change,
            ", the configuration has changed",
        );
    }
}
