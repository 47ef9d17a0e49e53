//! Recycles the buffers of exchanges: a thread keeps a few for its next requests, so that the usual request allocates none.

use std::cell::RefCell;

use super::exchange::Workspace;

/// Free workspaces kept by each worker thread.
const KEPT: usize = 64;
/// A workspace that grew beyond this (an unusually large head) is not kept.
const MAX_KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    // Boxed, so that giving and taking moves a pointer and the future of an exchange holds no more than that.
    #[expect(clippy::vec_box, reason = "see above")]
    static FREE: RefCell<Vec<Box<Workspace>>> = const { RefCell::new(Vec::new()) };
}

pub fn take() -> Box<Workspace> {
    FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

pub fn give(mut work: Box<Workspace>) {
    if work.out.capacity() + work.path.capacity() + work.target.capacity() > MAX_KEPT_BYTES {
        return;
    }
    work.out.clear();
    work.path.clear();
    work.target.clear();
    work.answer.reset();
    work.answer.fields.shrink_to(MAX_KEPT_BYTES);
    // A thread that is ending has no list any more; then the workspace is simply freed.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < KEPT {
            free.push(work);
        }
    });
}
