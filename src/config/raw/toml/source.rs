//! A TOML file as a text with lines: from offsets to places.

use std::ops::Range;
use std::sync::Arc;

use crate::config::diagnostics::Place;

/// A file.
pub(in crate::config) struct Source<'a> {
    pub(in crate::config) file: &'a Arc<str>,
    pub(in crate::config) text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    /// The lines of a file; `bytes` need not be a text.
    pub(in crate::config) fn new(file: &'a Arc<str>, bytes: &'a [u8]) -> Source<'a> {
        let mut line_starts = vec![0];
        let feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        line_starts.extend(feeds.map(|(offset, _)| offset + 1));
        let text = "";
        Source {
            file,
            text,
            line_starts,
        }
    }

    fn line_index(&self, offset: usize) -> usize {
        self.line_starts
            .partition_point(|start| *start <= offset)
            .max(1)
            - 1
    }

    pub(in crate::config) fn place(&self, offset: usize) -> Place {
        let line = u32::try_from(self.line_index(offset) + 1).unwrap_or(u32::MAX);
        let file = self.file.clone();
        Place { file, line }
    }

    /// Byte offset in the line.
    pub(in crate::config) fn column(&self, offset: usize) -> u32 {
        let column = offset - self.line_starts[self.line_index(offset)];
        u32::try_from(column).unwrap_or(u32::MAX)
    }

    /// Where a string's text begins, if it stands in the file as it is.
    pub(in crate::config) fn content(&self, span: &Range<usize>, text: &str) -> Option<usize> {
        let written = self.text.get(span.clone())?;
        [3, 1].into_iter().find_map(|quote| {
            let rest = written.get(quote..)?;
            let same = rest.len() == text.len() + quote && rest.starts_with(text);
            same.then_some(span.start + quote)
        })
    }
}
