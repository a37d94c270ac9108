//! A tree of cancellation tokens: the token of a service is a child of the token of its dependency.

use tokio_util::sync::CancellationToken;

use crate::graphs::Edge;

pub struct TokenTree(Vec<CancellationToken>);

impl TokenTree {
    /// Creates a tree for a graph in which each service depends on one service before it. A token
    /// is cancelled permanently, so each cascade needs a new tree.
    pub fn new(edges: &[Edge]) -> Self {
        let mut tokens = vec![CancellationToken::new()];
        for &(dependent, dependency) in edges {
            assert_eq!(dependent, tokens.len(), "the graph must be a tree");
            tokens.push(tokens[dependency].child_token());
        }
        Self(tokens)
    }

    /// Cancels the token of the first service.
    pub fn fail(&self) {
        self.0[0].cancel();
    }

    pub fn tokens(&self) -> &[CancellationToken] {
        &self.0
    }
}
