//! `HEAD /v1/files/{cid}`: does the group have these bytes? 200 = yes, 404 = every node says no, 503 = nobody can know.
//!
//! For capture agents that hold no copy any more: what they are told decides whether footage is declared lost. They learn
//! nothing but the answer.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use futures::{TryStreamExt, future::try_join_all};

use super::api::{Agent, Refusal};
use crate::{
    clients::ipfs::{Error, Ipfs, Reach},
    domain::cid::{Cid, FileHasher},
};

/// The route.
pub async fn have(State(agent): State<Arc<Agent>>, Path(cid): Path<String>) -> Result<StatusCode, Refusal> {
    let cid: Cid = cid
        .parse()
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "RequestInvalid", format!("{cid:?} is no CID")))?;
    match find(&agent.kubo, &cid).await {
        Ok(Found::Whole) => Ok(StatusCode::OK),
        Ok(Found::Nowhere) => Err(Refusal::new(StatusCode::NOT_FOUND, "ContentMissing", "no node of the group has it")),
        Ok(Found::NotHere) => {
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "NeighbourMissing", "a node that may have it is away"))
        }
        Err(error) => Err(Refusal::of_kubo(&error)),
    }
}

enum Found {
    Whole,
    NotHere,
    Nowhere,
}

async fn find(kubo: &Ipfs, cid: &Cid) -> Result<Found, Error> {
    for reach in [Reach::Local, Reach::Neighbours(super::read::SEARCH)] {
        match is_whole(kubo, cid, reach).await {
            Ok(true) => return Ok(Found::Whole),
            Ok(false) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // Only when every node could have answered does silence mean no.
    let neighbours = kubo.peered().await?;
    let answered = try_join_all(neighbours.iter().map(|id| kubo.answers(id))).await?;
    Ok(if answered.iter().all(|answered| *answered) { Found::Nowhere } else { Found::NotHere })
}

/// Every byte is read: of an unpinned file a collection may have left the root alone. What comes from a neighbour is
/// here afterwards.
async fn is_whole(kubo: &Ipfs, cid: &Cid, reach: Reach) -> Result<bool, Error> {
    let path = cid.to_string();
    let stat = kubo.stat(&path, reach).await?;
    if stat.is_directory {
        return Ok(false);
    }
    let mut bytes = std::pin::pin!(kubo.cat(&path, 0, stat.size, reach).await?);
    let mut hasher = FileHasher::default();
    // Trap: when a leaf is missing, kubo ends the body as if it were whole.
    loop {
        match bytes.try_next().await {
            Ok(Some(piece)) => hasher.update(&piece),
            Ok(None) => break,
            Err(_) if reach == Reach::Local => return Ok(false),
            Err(error) => return Err(Error::Transport(error)),
        }
    }
    Ok(hasher.finish().cid == *cid)
}
