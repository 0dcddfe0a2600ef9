//! A type for every index, so that one kind can't be used for another.

/// A shard thread, numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// A proxy (frontend, backend or listen) by its place in `Plan::proxies`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProxyId(pub u16);

/// A listening address by its place in `Plan::listeners`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenerId(pub u16);

/// A server's slot, unique in the process and stable for the server's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId(pub u32);

/// A session of one shard: slot and generation, so that a stale key never reaches a newer session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    /// Index in the shard's session slab.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
}
