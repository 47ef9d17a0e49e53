//! Read buffers that belong to a request, not to a connection.
//!
//! An idle connection owns none: a buffer is taken when the first byte of a request is there and goes back to a
//! small free list of the worker thread when the request has ended. A new buffer would have to be zeroed (16 KiB per
//! request); a recycled one need not, since only bytes that were read are ever looked at.

use std::cell::RefCell;

/// Enough for nearly every head with a small body, and small enough to keep some of them around.
pub const SMALL: usize = 16 * 1024;
/// For the rest of a body that filled a small buffer: fewer system calls per byte. Measured: a 1 MiB body costs half as
/// much with 256 KiB as with 16 (docs/decisions/0001-data-path.md).
pub const LARGE: usize = 256 * 1024;
/// Free buffers kept by each worker thread: at most 1 MiB of small ones and 1 MiB of large ones.
const KEPT_SMALL: usize = 64;
const KEPT_LARGE: usize = 4;

#[derive(Default)]
struct FreeList {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

thread_local! {
    static FREE: RefCell<FreeList> = RefCell::default();
}

/// A byte queue: filled at the end by reads, consumed at the front. Owns no memory until it is first filled.
#[derive(Debug, Default)]
pub struct Buf {
    /// Always fully initialised; `start..end` is what was read and not yet consumed.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buf {
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n.min(self.len());
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into; never empty. Takes a small buffer if there is none, moves what is left to the front, and
    /// grows when it is full (the caller bounds how much may be unconsumed).
    pub fn space(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = take(SMALL);
        }
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// `n` bytes were written to the front of `space`.
    pub fn advance(&mut self, n: usize) {
        debug_assert!(self.end + n <= self.bytes.len());
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Switches to a large buffer, for a body whose reads filled a small one.
    pub fn enlarge(&mut self) {
        if self.bytes.len() >= LARGE {
            return;
        }
        if self.is_empty() {
            self.release();
            self.bytes = take(LARGE);
            return;
        }
        let mut large = take(LARGE);
        let len = self.len();
        large[..len].copy_from_slice(self.filled());
        give(std::mem::replace(&mut self.bytes, large));
        self.start = 0;
        self.end = len;
    }

    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Gives the memory back if nothing unread is in it.
    pub fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            give(std::mem::take(&mut self.bytes));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.bytes));
    }
}

fn take(size: usize) -> Vec<u8> {
    let kept = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if size == SMALL { free.small.pop() } else { free.large.pop() }
    });
    kept.ok().flatten().unwrap_or_else(|| vec![0; size])
}

fn give(bytes: Vec<u8>) {
    // The thread may be ending (its list is gone); then the buffer is simply freed.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        match bytes.len() {
            SMALL if free.small.len() < KEPT_SMALL => free.small.push(bytes),
            LARGE if free.large.len() < KEPT_LARGE => free.large.push(bytes),
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buf: &mut Buf, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let space = buf.space();
            let n = rest.len().min(space.len());
            space[..n].copy_from_slice(&rest[..n]);
            buf.advance(n);
            rest = &rest[n..];
        }
    }

    #[test]
    fn what_is_put_in_comes_out_in_order_across_moves_and_growth() {
        let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let mut buf = Buf::default();

        put(&mut buf, &data[..10_000]);
        buf.consume(9_000);
        put(&mut buf, &data[10_000..50_000]);
        buf.enlarge();
        put(&mut buf, &data[50_000..]);

        assert_eq!(buf.filled(), &data[9_000..]);
    }

    #[test]
    fn an_empty_buffer_owns_no_memory_after_release() {
        let mut buf = Buf::default();
        put(&mut buf, b"hello");
        buf.release();
        assert_eq!(buf.filled(), b"hello", "unread bytes are never dropped");

        buf.consume(5);
        buf.release();

        assert_eq!(buf.capacity(), 0);
    }
}
