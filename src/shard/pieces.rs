//! Lists of received pieces, one per direction and turn. At the end of a turn all of them are
//! empty: what the sink didn't take was copied to private memory.

use crate::ring::{Group, Piece};

/// No piece.
pub(super) const NONE: u32 = u32::MAX;

/// A list of pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct PieceList {
    pub(super) head: u32,
    tail: u32,
}

impl PieceList {
    /// The empty list.
    pub(super) const EMPTY: PieceList = PieceList {
        head: NONE,
        tail: NONE,
    };

    /// Whether it has nothing.
    pub(super) fn is_empty(self) -> bool {
        self.head == NONE
    }
}

/// A piece in a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Which ring it is of.
    pub(super) group: Group,
    /// The bytes.
    pub(super) piece: Piece,
    /// The next one.
    pub(super) next: u32,
}

/// All piece lists of a shard.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    nodes: Vec<Node>,
    vacant: Vec<u32>,
}

impl Pieces {
    /// Appends a piece, joined to the last one where it continues it.
    pub(super) fn push(&mut self, list: &mut PieceList, group: Group, piece: Piece) {
        if list.tail != NONE {
            let last = &mut self.nodes[list.tail as usize];
            let end = last.piece.offset + last.piece.length;
            if last.group == group && last.piece.buffer == piece.buffer && end == piece.offset {
                last.piece.length += piece.length;
                return;
            }
        }
        let node = Node {
            group,
            piece,
            next: NONE,
        };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer pieces than ring bytes")
            }
        };
        if list.tail == NONE {
            list.head = index;
        } else {
            self.nodes[list.tail as usize].next = index;
        }
        list.tail = index;
    }

    /// The piece at an index.
    pub(super) fn at(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    /// Takes up to `count` bytes off the front piece: what they were, to be released.
    pub(super) fn consume(&mut self, list: &mut PieceList, count: u32) -> Option<(Group, Piece)> {
        if list.head == NONE || count == 0 {
            return None;
        }
        let index = list.head;
        let node = &mut self.nodes[index as usize];
        let taken = Piece {
            length: count.min(node.piece.length),
            ..node.piece
        };
        node.piece.offset += taken.length;
        node.piece.length -= taken.length;
        let group = node.group;
        if node.piece.length == 0 {
            list.head = node.next;
            if list.head == NONE {
                list.tail = NONE;
            }
            self.vacant.push(index);
        }
        Some((group, taken))
    }
}
