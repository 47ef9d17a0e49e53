//! The files that a result is written to. Made before the run: a misspelt folder is told at once and not an hour
//! later. What was there before stays until the new report is whole.

use std::io;
use std::path::{Path, PathBuf};

use crate::load::options::OutputOptions;
use crate::load::report::{folder_hint, hgrm, html, json, ndjson};
use crate::load::result::RunResult;
use crate::output::NewFile;

pub struct Outputs(Vec<Output>);

struct Output {
    form: Form,
    path: PathBuf,
    file: NewFile,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Html,
    Ndjson,
    Hgrm,
}

impl Outputs {
    /// # Errors
    ///
    /// When a file cannot be created.
    pub fn open(options: &OutputOptions) -> io::Result<Self> {
        let wanted = [
            (Form::Json, &options.report_json),
            (Form::Html, &options.report_html),
            (Form::Ndjson, &options.report_ndjson),
            (Form::Hgrm, &options.report_hgrm),
        ];
        let named = wanted.into_iter().filter_map(|(form, path)| Some((form, path.clone()?)));
        let open = |(form, path): (Form, PathBuf)| {
            let file = NewFile::open(&path).map_err(|error| at(&path, &error))?;
            Ok(Output { form, path, file })
        };
        Ok(Self(named.map(open).collect::<io::Result<_>>()?))
    }

    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn write(self, result: &RunResult) -> io::Result<()> {
        self.0.into_iter().try_for_each(|output| {
            let text = output.form.render(result)?;
            output.file.write(text.as_bytes()).map_err(|error| at(&output.path, &error))
        })
    }
}

impl Form {
    fn render(self, result: &RunResult) -> io::Result<String> {
        match self {
            Form::Json => Ok(json::render(result)),
            Form::Ndjson => Ok(ndjson::render(result)),
            Form::Html => html::render(result).map_err(io::Error::other),
            Form::Hgrm => {
                hgrm::render(&result.totals.response, result.totals.counts.censored()).map_err(io::Error::other)
            }
        }
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}{}", path.display(), folder_hint(path)))
}
