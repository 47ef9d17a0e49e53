//! Recycles the buffers of exchanges: a thread keeps a few for its next requests, so that the usual request allocates none.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::message::head::{RequestHead, ResponseHead};

/// Free sets kept by each worker thread.
const KEPT: usize = 64;
/// A set that grew beyond this (an unusually large head) is not kept.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// What a request needs from its first byte to its record, in two parts that are borrowed separately.
#[derive(Debug, Default)]
pub struct Desk {
    /// On the client's side.
    pub head: RequestHead,
    /// The answer's head, and what is sent together with it.
    pub out: Vec<u8>,
    pub work: Workspace,
}

/// Buffers of one exchange.
#[derive(Debug, Default)]
pub struct Workspace {
    pub answer: ResponseHead,
    /// The request as it goes to an HTTP/1 upstream.
    pub out: Vec<u8>,
    /// The normalised path, when it is not the one that was sent.
    pub path: Vec<u8>,
    /// Path and query as they go to the upstream.
    pub target: Vec<u8>,
    /// The client's `Host`, while the fields that hold it are rewritten.
    pub authority: Vec<u8>,
}

impl Desk {
    fn clear(&mut self) {
        let Self { head, out, work } = self;
        head.reset();
        work.answer.reset();
        for buffer in [out, &mut work.out, &mut work.path, &mut work.target, &mut work.authority] {
            buffer.clear();
        }
    }

    fn kept_bytes(&self) -> usize {
        let Self { head, out, work } = self;
        let buffers = [out, &work.out, &work.path, &work.target, &work.authority];
        buffers.into_iter().map(Vec::capacity).sum::<usize>()
            + head.fields.capacity_bytes()
            + work.answer.fields.capacity_bytes()
    }
}

thread_local! {
    // Boxed, so that lending moves a pointer and the future of an exchange holds no more than that.
    #[expect(clippy::vec_box, reason = "see above")]
    static FREE: RefCell<Vec<Box<Desk>>> = const { RefCell::new(Vec::new()) };
}

/// A desk on loan; it goes back, emptied, when this is dropped.
#[derive(Debug)]
pub struct Lent(Option<Box<Desk>>);

impl Lent {
    pub fn new() -> Self {
        Self(Some(FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten().unwrap_or_default()))
    }
}

impl Deref for Lent {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        self.0.as_ref().expect("it is taken out by drop only")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Desk {
        self.0.as_mut().expect("it is taken out by drop only")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut desk) = self.0.take() else { return };
        if desk.kept_bytes() > MAX_KEPT_BYTES {
            return;
        }
        desk.clear();
        // A thread that is ending has no list any more; then the desk is simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(desk);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desk_comes_back_empty_with_its_memory_and_a_large_one_is_not_kept() {
        let mut lent = Lent::new();
        lent.out.extend_from_slice(&[b'x'; 1000]);
        drop(lent);
        let mut again = Lent::new();
        assert!(again.out.is_empty() && again.out.capacity() >= 1000);

        again.work.out.reserve(MAX_KEPT_BYTES);
        drop(again);

        assert_eq!(Lent::new().work.out.capacity(), 0);
    }
}
