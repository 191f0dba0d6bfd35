"""The merged model lists of the fleet."""
