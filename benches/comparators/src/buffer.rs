//! Buffers lent by a free list of the thread, so that an idle connection owns none and a request allocates none.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Holds any head we take, and a small body with it.
pub const HEAD_BYTES: usize = 16 * 1024;
/// For streaming large bodies: fewer, larger system calls. hyper grows to about 400 KiB for the same reason.
static BODY_BYTES: AtomicUsize = AtomicUsize::new(256 * 1024);
/// Free buffers kept of each size; more than that go back to the allocator.
const KEPT: usize = 128;

thread_local! {
    static HEADS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static BODIES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// To be called before the first buffer is taken.
pub fn set_body_bytes(bytes: usize) {
    BODY_BYTES.store(bytes, Relaxed);
}

/// A zero-initialised (or used) buffer of fixed length, given back on drop.
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub fn head() -> Self {
        Self(HEADS.take_one().unwrap_or_else(|| vec![0; HEAD_BYTES]))
    }

    pub fn body() -> Self {
        Self(BODIES.take_one().unwrap_or_else(|| vec![0; BODY_BYTES.load(Relaxed)]))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        let list = if bytes.len() == HEAD_BYTES { &HEADS } else { &BODIES };
        // `try_with`: at the end of the thread the list may be gone; then the bytes are freed as usual.
        let _ = list.try_with(|list| {
            let mut list = list.borrow_mut();
            if list.len() < KEPT {
                list.push(bytes);
            }
        });
    }
}

trait FreeList {
    fn take_one(&'static self) -> Option<Vec<u8>>;
}

impl FreeList for std::thread::LocalKey<RefCell<Vec<Vec<u8>>>> {
    fn take_one(&'static self) -> Option<Vec<u8>> {
        self.with_borrow_mut(Vec::pop)
    }
}
