//! Views as the pieces that are sent to who watches them, made once after each reading, however many watch.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::views::{Name, Part, View};
use crate::admin::Admin;

/// A view in pieces.
#[derive(Debug)]
pub struct Rendered(pub Vec<Piece>);

#[derive(Debug)]
pub enum Piece {
    Block {
        id: &'static str,
        html: Html,
    },
    /// Rows with their keys, in order.
    Table {
        id: &'static str,
        rows: Vec<(String, Html)>,
    },
}

/// With what tells it from what was sent before.
#[derive(Debug)]
pub struct Html {
    pub text: String,
    pub hash: u64,
}

impl Html {
    fn of(text: String) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { text, hash: hasher.finish() }
    }
}

impl Rendered {
    pub fn of(view: View) -> Self {
        let piece = |part: Part| match part {
            Part::Block { id, html, .. } => Piece::Block { id, html: Html::of(html) },
            Part::Table(table) => {
                let row = |row: &super::table::Row| (row.key.clone(), Html::of(row.html(&table.columns)));
                Piece::Table { id: table.id, rows: table.rows.iter().map(row).collect() }
            }
        };
        Self(view.parts.into_iter().map(piece).collect())
    }
}

/// A view, of one route where somebody wants that.
type Watched = (Name, Option<String>);

/// Of each view that is watched the newest, with the reading that it shows: as many as there are streams.
#[derive(Debug, Default)]
pub struct Renderings(Mutex<HashMap<Watched, (u64, Arc<Rendered>)>>);

impl Renderings {
    /// This view as of the newest reading. It may have to be made: call it off the event loop.
    pub fn get(&self, admin: &Admin, watched: &Watched) -> Arc<Rendered> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = *admin.page.readings.borrow();
        if let Some((reading, rendered)) = made.get(watched)
            && *reading == newest
        {
            return Arc::clone(rendered);
        }
        let rendered = Arc::new(Rendered::of(super::view(admin, watched.0, watched.1.as_deref())));
        // What is no longer watched must not be remembered for ever.
        made.retain(|_, (reading, _)| *reading == newest);
        made.insert(watched.clone(), (newest, Arc::clone(&rendered)));
        rendered
    }
}
