package demo

var Answer = answer
