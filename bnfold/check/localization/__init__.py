"""Where two models part: node by node, tensor by tensor."""
