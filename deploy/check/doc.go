// Package check holds the deployment files to what they are read by: Kubernetes'
// own types, the schema of Compose, the parser of Dockerfiles, and Parley itself,
// which is asked whether it would start with the settings that they give it.
//
// It is nothing but tests, in a module of its own, so that the program does not
// depend on what they need; .ci/run runs them. It never knows a cluster, a container
// engine or a network.
//
// The invariant: what can be said twice in these files (a port, a user, a time, a
// version) is the same wherever it is said.
package check
