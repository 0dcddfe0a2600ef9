//! Rules of flows and pairs, one by one.

use std::net::SocketAddr;

use super::*;
use crate::base::time::Moment;

const RULES: Rules = Rules {
    idle_ms: 60_000,
    unconfirmed_ms: 10_000,
    requests_max: None,
    responses_max: None,
};
const START: Moment = Moment(77_000_000_000);
/// What pairs rest, with what is lost by counting in coarse steps.
const RESTED_MS: u64 = 1_200;

fn client(number: u16) -> FlowKey {
    let ip = [10, 0, (number >> 8) as u8, number as u8];
    FlowKey::new(number % 3, (ip, 4000).into(), None, None)
}

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 53).into()
}

fn table(capacity: u32) -> FlowTable<()> {
    FlowTable::new(capacity, START)
}

fn open(table: &mut FlowTable<()>, key: FlowKey, rules: Rules, now: Moment) -> FlowId {
    let opening = Opening {
        upstream: 0,
        pair: None,
        rules,
    };
    table.open(key, opening, (), now).expect("there is room")
}

#[test]
fn of_what_comes_at_once_only_so_many_pass_as_the_flow_takes() {
    let mut table = table(9);
    let rules = Rules {
        requests_max: Some(5),
        ..RULES
    };
    let id = open(&mut table, client(1), rules, START);
    assert_eq!(table.on_request(id, 3, 30, START), After::Stays);
    assert_eq!(table.get(id).unwrap().requests_left(), 2);
    assert_eq!(table.on_request(id, 2, 20, START), After::Spent);
    assert_eq!(
        (
            table.find(&client(1)),
            table.get(id).unwrap().requests_left()
        ),
        (None, 0)
    );
    // The next one is another flow; the first is still there for its replies.
    let second = open(&mut table, client(1), rules, START);
    assert_eq!(table.find(&client(1)), Some(second));
    assert_eq!(table.on_reply(id, 1, 9, START), After::Stays);
    let closed = table.close(id, Reason::Requests).unwrap();
    assert_eq!(
        (closed.flow.requests(), closed.flow.replies()),
        ((5, 50), (1, 9))
    );
    assert_eq!((table.find(&client(1)), table.len()), (Some(second), 1));
}

#[test]
fn a_flow_ends_with_the_last_reply_that_is_due() {
    let mut table = table(9);
    let rules = |responses| Rules {
        responses_max: Some(responses),
        ..RULES
    };
    let id = open(&mut table, client(1), rules(1), START);
    // Two questions at once, as resolvers ask: both have their answer.
    assert_eq!(table.on_request(id, 2, 80, START), After::Stays);
    assert_eq!(table.on_reply(id, 1, 90, START), After::Stays);
    assert_eq!(table.get(id).unwrap().responses_left(), 1);
    assert_eq!(
        table.on_reply(id, 1, 90, START),
        After::Ends(Reason::Responses)
    );
    let id = open(&mut table, client(2), rules(0), START);
    assert_eq!(
        table.on_request(id, 1, 80, START),
        After::Ends(Reason::Responses)
    );
    let id = open(&mut table, client(3), RULES, START);
    assert_eq!(table.on_reply(id, 64, 0, START), After::Stays);
    // What a server says first passes, even where no reply is expected.
    let id = open(&mut table, client(4), rules(0), START);
    assert_eq!(table.get(id).unwrap().responses_left(), 1);
    assert_eq!(
        table.on_reply(id, 1, 9, START),
        After::Ends(Reason::Responses)
    );
}

#[test]
fn the_oldest_without_a_reply_makes_room_at_the_limit_it_counts_for() {
    let mut table = table(4);
    let ids = [1, 2, 4, 7].map(|number| {
        let now = START.after_ms(number.into());
        open(&mut table, client(number), RULES, now)
    });
    let opening = Opening {
        upstream: 0,
        pair: None,
        rules: RULES,
    };
    assert!(table.is_full() && table.vacant().is_none());
    assert!(table.open(client(8), opening, (), START).is_err());
    let of = |table: &FlowTable<()>, listener| table.oldest_unconfirmed(|l| l == listener);
    assert_eq!(table.oldest_unconfirmed(|_| true), Some(ids[0]));
    assert_eq!(
        [of(&table, 0), of(&table, 1), of(&table, 2)],
        [None, Some(ids[0]), Some(ids[1])]
    );
    let _ = table.on_reply(ids[0], 1, 1, START);
    assert_eq!((of(&table, 1), table.unconfirmed()), (Some(ids[2]), 3));
    table.close(ids[2], Reason::Evicted).unwrap();
    assert_eq!(of(&table, 1), Some(ids[3]));
    for id in [ids[1], ids[3]] {
        let _ = table.on_reply(id, 1, 1, START);
    }
    assert_eq!(table.oldest_unconfirmed(|_| true), None);
}

#[test]
fn a_flow_that_a_server_begins_takes_nothing_from_another_of_its_client() {
    let mut table = table(4);
    let first = open(&mut table, client(1), RULES, START);
    let second = open(&mut table, client(1), RULES, START);
    assert!(table.get(second).unwrap().is_spent());
    assert_eq!(table.find(&client(1)), Some(first));
    table.close(second, Reason::Idle).unwrap();
    assert_eq!(table.find(&client(1)), Some(first));
}

#[test]
fn flows_end_when_their_time_is_over_and_not_before() {
    let mut table = table(4);
    let silent = open(&mut table, client(1), RULES, START);
    let active = open(&mut table, client(2), RULES, START);
    let mut ended = Vec::new();
    let _ = table.on_reply(active, 1, 1, START);
    let _ = table.on_request(active, 1, 1, START.after_ms(30_000));
    table.expire(START.after_ms(9_999), &mut ended);
    assert_eq!(ended, []);
    table.expire(START.after_ms(10_200), &mut ended);
    assert_eq!(ended, [(silent, Reason::Unconfirmed)]);
    table.close(silent, Reason::Unconfirmed).unwrap();
    ended.clear();
    let mut looks = 0;
    while let Some(next) = table.next_deadline().filter(|_| ended.is_empty()) {
        assert!(next <= START.after_ms(91_000));
        looks += 1;
        table.expire(next, &mut ended);
        assert!(ended.is_empty() || next >= START.after_ms(90_000));
    }
    assert_eq!(ended, [(active, Reason::Idle)]);
    assert!(looks < 12, "looked at {looks} times");
}

#[test]
fn no_call_looks_at_more_than_a_turn_may() {
    let mut table = table(5_000);
    for number in 0..5_000 {
        open(&mut table, client(number), RULES, START);
    }
    let now = START.after_ms(20_000);
    let (mut calls, mut ended) = (0, Vec::new());
    while table.next_deadline().is_some_and(|next| next <= now) {
        table.expire(now, &mut ended);
        assert!(ended.len() <= EXPIRED_PER_TURN);
        for (id, reason) in ended.drain(..) {
            table.close(id, reason).unwrap();
        }
        calls += 1;
    }
    assert!(
        table.is_empty() && (5..=8).contains(&calls),
        "{calls} calls"
    );
}

#[test]
fn a_flow_costs_what_is_said_of_it() {
    // With its generation in the slab.
    let entry = size_of::<Flow<()>>() + 8;
    let (timer, index, pair) = (24, 24, 8);
    assert_eq!(entry, 168);
    assert!(entry + timer + index + pair + 64 <= 300);
}

/// A pool with one server, and flows that take pairs of it in turn.
struct Taking {
    pool: Pool,
    next: u32,
}

impl Taking {
    fn new(sockets_max: u16) -> Taking {
        let mut pool = Pool::new(0, PoolLimits::of(sockets_max));
        assert!(pool.add_upstream(0, address(1), START));
        Taking { pool, next: 0 }
    }

    fn flow(&mut self) -> FlowId {
        self.next += 1;
        FlowId {
            slot: self.next,
            generation: 1,
        }
    }

    fn take(&mut self, upstream: u32, number: u16, now: Moment) -> Result<PairAt, Refusal> {
        let flow = self.flow();
        loop {
            match self.pool.take(upstream, &client(number), flow, now, true) {
                Take::Pair(pair) => return Ok(pair),
                Take::Grow => assert!(self.pool.add_socket(now).is_some()),
                Take::Refused(why) => return Err(why),
            }
        }
    }

    fn remember(&mut self, pair: PairAt, number: u16, now: Moment) {
        let rest = Rest::Mapping {
            key: &client(number),
            upstream: 0,
            last: now,
            lifetime_ms: 300_000,
        };
        self.pool.release(pair, rest, now);
    }
}

#[test]
fn pairs_are_used_again_after_their_rest_the_oldest_first() {
    let mut taking = Taking::new(100);
    let pairs = [1, 2, 3].map(|number| taking.take(0, number, START).unwrap());
    assert_eq!(pairs.map(|pair| pair.socket), [0, 1, 2]);
    for index in [1, 0] {
        let now = START.after_ms(1 - index as u64);
        taking.pool.release(pairs[index], Rest::Quarantine, now);
    }
    // None has rested yet, so there is another socket.
    let fourth = taking.take(0, 4, START.after_ms(999)).unwrap();
    assert_eq!((fourth.socket, taking.pool.sockets()), (3, 4));
    let later = START.after_ms(RESTED_MS);
    let again = [5, 6, 7].map(|number| taking.take(0, number, later).unwrap().socket);
    assert_eq!((again, taking.pool.sockets()), ([1, 0, 4], 5));
}

#[test]
fn at_the_cap_a_pair_that_rests_is_better_than_none() {
    let mut taking = Taking::new(2);
    let pairs = [1, 2].map(|number| taking.take(0, number, START).unwrap());
    assert_eq!(taking.take(0, 3, START), Err(Refusal::Full));
    taking.pool.release(pairs[1], Rest::Quarantine, START);
    assert_eq!(taking.take(0, 3, START), Ok(pairs[1]));
    // The same where no socket can be opened.
    let mut taking = Taking::new(100);
    let pair = taking.take(0, 1, START).unwrap();
    taking.pool.release(pair, Rest::Quarantine, START);
    let flow = taking.flow();
    assert_eq!(
        taking.pool.take(0, &client(2), flow, START, true),
        Take::Grow
    );
    assert_eq!(
        taking.pool.take(0, &client(2), flow, START, false),
        Take::Pair(pair)
    );
}

#[test]
fn a_mapping_is_its_clients_until_it_ends() {
    let mut taking = Taking::new(1);
    let pair = taking.take(0, 1, START).unwrap();
    taking.remember(pair, 1, START);
    let soon = START.after_ms(299_999);
    assert_eq!(taking.take(0, 2, soon), Err(Refusal::Mapped));
    let reply = Reply::Mapping {
        key: client(1),
        upstream: 0,
        pair,
    };
    assert_eq!(taking.pool.reply(0, address(1), soon), reply);
    assert_eq!(taking.pool.reply(0, address(2), soon), Reply::Unknown);
    assert_eq!(
        taking.pool.reply(0, address(1), START.after_ms(300_000)),
        Reply::Unknown
    );
    // Its client has it back at any time, and so has its server.
    assert_eq!(taking.take(0, 1, soon), Ok(pair));
    taking.remember(pair, 1, soon);
    let flow = taking.flow();
    assert!(taking.pool.resume(pair, flow) && !taking.pool.resume(pair, flow));
    assert_eq!(
        taking.pool.reply(0, address(1), soon),
        Reply::Flow(flow.slot)
    );
    taking.remember(pair, 1, soon);
    assert_eq!(taking.take(0, 2, soon.after_ms(300_000)), Ok(pair));
    assert_eq!((taking.pool.mappings(), taking.pool.flows()), (0, 1));
}

#[test]
fn servers_with_one_address_share_its_pairs_and_others_do_not() {
    let mut taking = Taking::new(2);
    for (upstream, number) in [(1, 1), (2, 2)] {
        assert!(taking.pool.add_upstream(upstream, address(number), START));
    }
    let sockets = [0, 1].map(|upstream| taking.take(upstream, 1, START).unwrap().socket);
    assert_eq!(sockets, [0, 1]);
    assert_eq!(taking.take(1, 2, START), Err(Refusal::Full));
    let other = taking.take(2, 1, START).unwrap();
    assert_eq!((other.socket, taking.pool.sockets()), (0, 2));
    let mapped = SocketAddr::from((std::net::Ipv4Addr::new(192, 0, 2, 2).to_ipv6_mapped(), 53));
    assert_eq!(taking.pool.reply(0, mapped, START), Reply::Flow(4));
}

#[test]
fn a_server_that_was_gone_finds_its_pairs_as_they_were() {
    let mut taking = Taking::new(100);
    let pair = taking.take(0, 1, START).unwrap();
    taking.pool.remove_upstream(0);
    assert_eq!(taking.take(0, 2, START), Err(Refusal::Unknown));
    // Its flow is still there.
    assert!(matches!(
        taking.pool.reply(0, address(1), START),
        Reply::Flow(_)
    ));
    taking.pool.release(pair, Rest::Quarantine, START);
    assert!(taking.pool.add_upstream(7, address(1), START));
    assert_ne!(taking.take(7, 2, START).unwrap().socket, pair.socket);
    taking.pool.remove_upstream(7);
    // Nor does another one get its place, before everything there has rested.
    assert!(taking.pool.add_upstream(8, address(2), START));
    assert_ne!(taking.take(8, 3, START).unwrap().column, pair.column);
}

#[test]
fn a_turn_adds_no_more_sockets_than_it_may() {
    let mut taking = Taking::new(1000);
    let most = PoolLimits::of(1000).growth_max;
    for number in 0..most {
        assert!(taking.take(0, number, START).is_ok());
    }
    assert_eq!(taking.take(0, most, START), Err(Refusal::Growth));
    taking.pool.begin_turn();
    assert!(taking.take(0, most, START).is_ok());
}

#[test]
fn sockets_are_given_up_from_the_last_one_on() {
    let mut taking = Taking::new(9);
    let pairs = [1, 2, 3].map(|number| taking.take(0, number, START).unwrap());
    for pair in [pairs[0], pairs[2]] {
        taking.pool.release(pair, Rest::Quarantine, START);
    }
    let later = START.after_ms(61_000);
    assert_eq!(taking.pool.shrink(START.after_ms(60_000)), None);
    assert_eq!(
        (taking.pool.shrink(later), taking.pool.shrink(later)),
        (Some(2), None)
    );
    taking.pool.release(pairs[1], Rest::Quarantine, later);
    let later = later.after_ms(61_000);
    assert_eq!(
        [(); 3].map(|()| taking.pool.shrink(later)),
        [Some(1), Some(0), None]
    );
}

#[test]
fn a_lost_socket_leaves_a_place_for_another() {
    let mut taking = Taking::new(3);
    let pairs = [1, 2, 3].map(|number| taking.take(0, number, START).unwrap());
    taking.remember(pairs[2], 3, START);
    let mut flows = Vec::new();
    taking.pool.lose_socket(0, &mut flows);
    taking.pool.lose_socket(0, &mut flows);
    taking.pool.lose_socket(77, &mut flows);
    assert_eq!(
        (flows.len(), taking.pool.sockets(), taking.pool.flows()),
        (1, 2, 1)
    );
    // Of a flow that had it nothing is left to give back.
    taking.pool.release(pairs[0], Rest::Quarantine, START);
    assert_eq!(taking.pool.reply(0, address(1), START), Reply::Unknown);
    assert_eq!(taking.take(0, 4, START).unwrap().socket, 0);
    taking.pool.lose_socket(2, &mut flows);
    assert_eq!((taking.pool.mappings(), taking.pool.sockets()), (0, 2));
}
