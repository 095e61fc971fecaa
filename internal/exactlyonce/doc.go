// Package exactlyonce runs the SDK's example of a program that keeps its
// positions in its own transactions, against a real server, and kills it at
// every point.
package exactlyonce
