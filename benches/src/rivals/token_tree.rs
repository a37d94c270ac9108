//! A tree of cancellation tokens: each service's is a child of the one that it depends on.

use tokio_util::sync::CancellationToken;

use crate::graphs::Edge;

pub struct TokenTree(Vec<CancellationToken>);

impl TokenTree {
    /// For graphs in which each service depends on one other, which comes before it. A token is cancelled for
    /// good, so that each cascade needs a tree of its own.
    pub fn new(edges: &[Edge]) -> Self {
        let mut tokens = vec![CancellationToken::new()];
        for &(dependent, dependency) in edges {
            assert_eq!(dependent, tokens.len(), "a tree");
            tokens.push(tokens[dependency].child_token());
        }
        Self(tokens)
    }

    /// Cancels the first.
    pub fn fail(&self) {
        self.0[0].cancel();
    }

    pub fn tokens(&self) -> &[CancellationToken] {
        &self.0
    }
}
